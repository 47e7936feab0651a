import test from 'ava';
import { FakeDomain } from '../../../runtime/hypervisor/fake/index.ts';
import { FRAME_SIZE, type MachineFrame, machineFrame } from '../../../runtime/hypervisor/frame.ts';
import { guestVirtual } from '../../../runtime/memory/address.ts';
import { PagedAddressSpace } from '../../../runtime/memory/address-space.ts';
import { FOUR_LEVEL, kernelTableRoot, tableRoot } from '../../../runtime/memory/paging.ts';
import { ReadBatch } from '../../../runtime/memory/read-batch.ts';
import { isFault } from '../../../runtime/memory/walker.ts';
import { words } from '../../fuzz/mutants.ts';
import { PageTables } from './page-tables.ts';

const MODE = { split: FOUR_LEVEL, physicalBits: 40, noExecute: true, largePages: [2, 3] };
const BASE = 0xffff_8880_0000_0000n;

test('100,000 corrupted page tables: what is read is bounded, and is what a fresh walk finds', (t) => {
  const frames = 64;
  const domain = new FakeDomain({ ram: [{ first: 0, count: frames }] });
  domain.recorder.recording = false;
  let reads = 0;
  domain.recorder.onCall(() => {
    reads += 1;
  });
  const tables = new PageTables(domain.image, 1);
  for (let i = 0; i < 8; i++) tables.map(BASE + BigInt(i) * 4096n, 16 + i);
  tables.map(BASE + (1n << 30n), 32);
  const pristine = domain.image.load(FRAME_SIZE, 15 * FRAME_SIZE);
  const kept = new PagedAddressSpace(domain, MODE, tables.root);
  const batch = new ReadBatch();
  for (let i = 0; i < 8; i++) batch.add(guestVirtual(BASE + BigInt(i) * 4096n + 4000n), 200);
  batch.add(guestVirtual(BASE + (1n << 30n) + 8n), 16);
  const next = words(20_061_121);
  for (let image = 0; image < 100_000; image++) {
    if (image % 16 === 0) domain.image.store(FRAME_SIZE, pristine);
    for (let change = next() % 4; change >= 0; change--) {
      // In used tables half of the time: an entry that is wild, that leads to itself, or one bit.
      const frame = 1 + (next() % 5);
      const slot = next() % 2 === 0 ? (next() % 9) * 8 : (next() % 512) * 8;
      const entry = Buffer.alloc(8);
      const kind = next() % 3;
      if (kind === 0) entry.writeBigUInt64LE((BigInt(next()) << 32n) | BigInt(next()));
      else if (kind === 1) entry.writeBigUInt64LE((BigInt(next() % frames) << 12n) | 0x63n);
      else {
        entry.set(domain.image.load(frame * FRAME_SIZE + slot, 8));
        entry[next() % 8]! ^= 1 << (next() % 8);
      }
      domain.image.store(frame * FRAME_SIZE + slot, entry);
    }
    domain.tick();
    reads = 0;
    kept.read(batch);
    // Tables known from before, at most four new ones for each part, and the parts.
    if (reads > 2 * (frames + 17 * 5)) return t.fail(`image ${image}: ${reads} reads`);
    if (image % 50 !== 0) continue;
    const fresh = new PagedAddressSpace(domain, MODE, tables.root);
    for (let i = 0; i < batch.count; i++) {
      const address = guestVirtual(batch.addresses[i]!);
      const expected = fresh.probe(address);
      const there = !isFault(expected) && expected.frame < frames;
      if (there !== batch.mapped(i) > 0) return t.fail(`image ${image}: read ${i}`);
      if (!there || isFault(expected)) continue;
      const bytes = domain.image.load(expected.frame * FRAME_SIZE + expected.offset, 8);
      if (Buffer.compare(bytes, batch.content(i).subarray(0, 8)) !== 0)
        return t.fail(`image ${image}: content ${i}`);
    }
  }
  t.pass();
});

test('page tables of a Xen PV guest: machine frames, far apart, read through a reader of such', (t) => {
  const domain = new FakeDomain<MachineFrame>({
    space: 'machine',
    ram: [
      { first: machineFrame(0x1000), count: 16 },
      { first: machineFrame(0x40_0000), count: 1 },
    ],
  });
  const tables = new PageTables(domain.image, 0x1000);
  tables.map(BASE, 0x40_0000);
  domain.image.store(0x40_0000 * FRAME_SIZE + 16, Buffer.from('machine'));
  const space = new PagedAddressSpace<MachineFrame>(domain, MODE, tables.root);
  t.is(Buffer.from(space.readBytes(guestVirtual(BASE + 16n), 7)).toString(), 'machine');
  t.deepEqual(space.locate(guestVirtual(BASE + 16n), 7), [
    { frame: machineFrame(0x40_0000), offset: 16, length: 7 },
  ]);
});

test('page-table isolation: the user half maps the entry text only, the kernel half is beside it', (t) => {
  const domain = new FakeDomain();
  const entryText = 0xffff_ffff_8120_0000n;
  const data = 0xffff_ffff_8220_0000n;
  const kernel = new PageTables(domain.image, 0x180);
  kernel.map(entryText, 0x300);
  kernel.map(data, 0x301);
  const user = new PageTables(domain.image, 0x200);
  user.map(entryText, 0x300);
  // The pair of topmost tables: 8 KiB, aligned to that.
  const pair = 0x100 * FRAME_SIZE;
  domain.image.store(pair, domain.image.load(kernel.root, FRAME_SIZE));
  domain.image.store(pair + FRAME_SIZE, domain.image.load(user.root, FRAME_SIZE));
  // CR3 in user mode: bit 12 for the user half, a PCID with bit 11 for user, bit 63 as it was written.
  const cr3 = (1n << 63n) | BigInt(pair) | 0x1801n;
  t.is(tableRoot(cr3), pair + FRAME_SIZE);
  t.is(kernelTableRoot(cr3), pair);
  const seen = (root: number, address: bigint) =>
    !isFault(new PagedAddressSpace(domain, MODE, root).probe(guestVirtual(address)));
  t.deepEqual([seen(tableRoot(cr3), entryText), seen(tableRoot(cr3), data)], [true, false]);
  t.deepEqual([seen(kernelTableRoot(cr3), entryText), seen(kernelTableRoot(cr3), data)], [true, true]);
});
