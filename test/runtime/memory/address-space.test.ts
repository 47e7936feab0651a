import test from 'ava';
import fc from 'fast-check';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { FRAME_SIZE } from '../../../runtime/hypervisor/frame.ts';
import { guestVirtual } from '../../../runtime/memory/address.ts';
import { PagedAddressSpace } from '../../../runtime/memory/address-space.ts';
import { TranslationFault } from '../../../runtime/memory/fault.ts';
import { FIVE_LEVEL, FOUR_LEVEL } from '../../../runtime/memory/paging.ts';
import { ReadBatch } from '../../../runtime/memory/read-batch.ts';
import type { PagingMode } from '../../../runtime/memory/types.ts';
import { isFault } from '../../../runtime/memory/walker.ts';
import { LARGE, NO_EXECUTE, PageTables, PRESENT, USER, WRITABLE } from './page-tables.ts';

const MODE: PagingMode = { split: FOUR_LEVEL, physicalBits: 40, noExecute: true, largePages: [2, 3] };
const BASE = 0xffff_8880_0000_0000n;
const TABLES = 0x1000;

function setUp(levels: 4 | 5 = 4, mode: Partial<PagingMode> = {}) {
  const domain = new FakeDomain({ ram: [{ first: 0, count: 0x40_0000 }] });
  const tables = new PageTables(domain.image, TABLES, levels);
  const split = levels === 4 ? FOUR_LEVEL : FIVE_LEVEL;
  const space = new PagedAddressSpace(domain, { ...MODE, split, ...mode }, tables.root);
  return { domain, tables, space };
}

/** Bytes that tell the frame they are in. */
function fill(domain: FakeDomain, frame: number): Uint8Array {
  const bytes = Uint8Array.from({ length: FRAME_SIZE }, (_, i) => (frame * 31 + i * 7 + (i >> 8)) & 0xff);
  domain.image.store(frame * FRAME_SIZE, bytes);
  return bytes;
}

test('random mappings of all page sizes and depths read as the model says', (t) => {
  const page = fc.record({
    slot: fc.integer({ min: 0, max: 40 }),
    frame: fc.integer({ min: 0x2000, max: 0x2040 }),
    level: fc.constantFrom(1 as const, 1 as const, 1 as const, 2 as const, 3 as const),
  });
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 5 as const),
      fc.array(page, { maxLength: 30 }),
      fc.array(
        fc.record({
          page: fc.integer({ min: 0, max: 45 }),
          offset: fc.integer({ min: 0, max: 4095 }),
          length: fc.integer({ min: 1, max: 9000 }),
        }),
        { minLength: 1, maxLength: 20 },
      ),
      (levels, pages, reads) => {
        const { domain, tables, space } = setUp(levels);
        // Each level has its own region so that mappings do not overlap.
        const model = new Map<bigint, number>();
        for (const { slot, frame, level } of pages) {
          if (level === 1) {
            const address = BASE + BigInt(slot) * 4096n;
            tables.map(address, frame);
            model.set(address >> 12n, frame);
            fill(domain, frame);
          } else {
            const size = level === 2 ? 512n : 0x4_0000n;
            const first = level === 2 ? 0x2000 : 0;
            const address = BASE + BigInt(level) * (1n << 39n) + BigInt(slot % 2) * 2n * size * 4096n;
            tables.map(address, first, level);
            for (let i = 0n; i < 50n; i++) model.set((address >> 12n) + i, first + Number(i));
            for (let i = 0; i < 50; i++) fill(domain, first + i);
          }
        }
        const batch = new ReadBatch();
        for (const region of [0n, 2n, 3n]) {
          for (const { page: at, offset, length } of reads) {
            batch.add(
              guestVirtual(BASE + region * (1n << 39n) + BigInt(at) * 4096n + BigInt(offset)),
              length,
            );
          }
        }
        space.read(batch);
        for (let i = 0; i < batch.count; i++) {
          const start = batch.addresses[i]!;
          let mapped = 0;
          for (let k = 0n; k < BigInt(batch.lengths[i]!); k++) {
            const frame = model.get((start + k) >> 12n);
            if (frame === undefined) break;
            mapped += 1;
            const expected = domain.image.load(frame * FRAME_SIZE + Number((start + k) & 0xfffn), 1)[0];
            if (batch.content(i)[Number(k)] !== expected) return false;
          }
          if (batch.mapped(i) !== mapped) return false;
          if (batch.complete(i) !== (batch.fault(i) === undefined)) return false;
        }
        return true;
      },
    ),
    { numRuns: 150 },
  );
  t.pass();
});

test('a structure that crosses into an unmapped page is read as far as it is there', (t) => {
  const { domain, tables, space } = setUp();
  tables.map(BASE, 0x2000);
  const content = fill(domain, 0x2000);
  const batch = new ReadBatch();
  const crossing = batch.add(guestVirtual(BASE + 4000n), 200);
  const inside = batch.add(guestVirtual(BASE + 8n), 16);
  t.is(space.read(batch), 1);
  t.is(batch.mapped(crossing), 96);
  t.deepEqual([...batch.content(crossing).subarray(0, 96)], [...content.subarray(4000)]);
  t.true(batch.complete(inside));
  const fault = batch.fault(crossing)!;
  t.is(fault.reason, 'not-present');
  t.is(fault.level, 1);
  t.is(fault.address, guestVirtual(BASE + 4096n));
  t.is(fault.entryAddress, tables.find(BASE + 4096n, 1));
  t.is(fault.entry, 0n);
});

test('faults carry address, root, level and the bad entry', (t) => {
  const { tables, space } = setUp();
  tables.map(BASE, 0x2000);
  const error = t.throws(() => space.readU64(guestVirtual(BASE + (1n << 30n))), {
    instanceOf: TranslationFault,
  })!;
  t.is(error.code, 'translation-fault');
  t.is(error.facts.level, 3);
  t.is(error.facts.root, tables.root);
  const wild = t.throws(() => space.readU64(guestVirtual(0x1234_5678_9abc_def0n)), {
    instanceOf: TranslationFault,
  })!;
  t.is(wild.facts.reason, 'non-canonical');
});

for (const [name, entry, mode, level] of [
  ['a physical address wider than the processor has', (1n << 45n) | PRESENT, {}, 1],
  ['no-execute where EFER.NXE is clear', NO_EXECUTE | PRESENT | (0x2000n << 12n), { noExecute: false }, 1],
  ['a large page that is not aligned', LARGE | PRESENT | ((0x2001n << 12n) << 1n), {}, 2],
  ['a large page at the top level', LARGE | PRESENT, {}, 4],
  ['1 GiB pages where there are none', LARGE | PRESENT, { largePages: [2] }, 3],
] as const) {
  test(`reserved bits: ${name}`, (t) => {
    const { tables, space } = setUp(4, mode as Partial<PagingMode>);
    tables.map(BASE, 0x2000);
    tables.setEntry(tables.find(BASE, level), entry);
    const result = space.probe(guestVirtual(BASE));
    t.true(isFault(result));
    t.like(result, { reason: 'reserved-bit', level, entry });
  });
}

test('rights are those of all levels together; bit 12 of a large page is no address', (t) => {
  const { domain, tables, space } = setUp();
  tables.map(BASE, 0x2000, 1, PRESENT | USER | NO_EXECUTE);
  t.like(space.translate(guestVirtual(BASE + 5n)), {
    frame: 0x2000,
    offset: 5,
    pageSize: 4096,
    writable: false,
    user: true,
    executable: false,
  });
  tables.map(BASE + (1n << 39n), 0x2200 + 1, 2, PRESENT | WRITABLE);
  domain.tick();
  t.like(space.translate(guestVirtual(BASE + (1n << 39n) + 0x3004n)), {
    frame: 0x2203,
    offset: 4,
    pageSize: 2 ** 21,
    user: false,
    executable: true,
  });
});

test('a remapped page is seen in the next generation, not before, and never mixed', (t) => {
  const { domain, tables, space } = setUp();
  const first = fill(domain, 0x2000);
  const second = fill(domain, 0x2001);
  tables.map(BASE, 0x2000);
  t.deepEqual(space.readBytes(guestVirtual(BASE), 64), first.slice(0, 64));
  tables.map(BASE, 0x2001);
  t.deepEqual(space.readBytes(guestVirtual(BASE), 64), first.slice(0, 64));
  domain.tick();
  t.deepEqual(space.readBytes(guestVirtual(BASE), 64), second.slice(0, 64));
});

test('a pause that ends makes another generation; accessed and dirty bits do not cost a walk', async (t) => {
  const { domain, tables, space } = setUp();
  fill(domain, 0x2000);
  tables.map(BASE, 0x2000);
  const batch = new ReadBatch();
  batch.add(guestVirtual(BASE), 8);
  const guard = await domain.pause.acquire();
  space.read(batch);
  domain.recorder.reset();
  space.read(batch);
  t.is(domain.recorder.count('read'), 1, 'warm: one range, no tables');
  await guard.release();
  tables.setEntry(tables.find(BASE, 1), (0x2000n << 12n) | PRESENT | WRITABLE | 0x60n);
  domain.recorder.reset();
  space.read(batch);
  t.is(domain.recorder.count('read'), 5, 'four tables compared, one range');
});

test('addresses built from halves carry and borrow as pointers do', (t) => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      fc.integer({ min: -0x7fff_ffff, max: 0x7fff_ffff }),
      (address, offset) => {
        const batch = new ReadBatch();
        const index = batch.addHalves(Number(address & 0xffff_ffffn), Number(address >> 32n), offset, 8);
        return batch.addresses[index] === BigInt.asUintN(64, address + BigInt(offset));
      },
    ),
  );
  t.pass();
});

test('a batch that is read again and again shows what a new one of a new space does, whatever changes', (t) => {
  const step = fc.record({
    what: fc.constantFrom('nothing', 'content', 'map', 'unmap', 'gone', 'add'),
    page: fc.integer({ min: 0, max: 5 }),
    frame: fc.integer({ min: 0x2000, max: 0x2006 }),
  });
  const there = fc.array(fc.boolean(), { minLength: 6, maxLength: 6 });
  fc.assert(
    fc.property(there, fc.array(step, { maxLength: 12 }), (mapped, steps) => {
      const { domain, tables, space } = setUp();
      const addressOf = (page: number) => guestVirtual(BASE + BigInt(page) * 4096n + 4000n);
      for (const [page, is] of mapped.entries()) {
        tables.map(BASE + BigInt(page) * 4096n, 0x2000 + page);
        fill(domain, 0x2000 + page);
        if (!is) tables.setEntry(tables.find(BASE + BigInt(page) * 4096n, 1), 0n);
      }
      const often = new ReadBatch();
      const pages = [0, 2, 4];
      for (const page of pages) often.add(addressOf(page), 200);
      for (const { what, page, frame } of steps) {
        const entry = tables.find(BASE + BigInt(page) * 4096n, 1);
        if (what === 'content')
          domain.image.store(frame * FRAME_SIZE + 4050, Uint8Array.of(page, frame & 0xff));
        if (what === 'map') tables.setEntry(entry, (BigInt(frame) << 12n) | PRESENT | WRITABLE);
        if (what === 'unmap') tables.setEntry(entry, 0n);
        // A frame that the guest has no memory for.
        if (what === 'gone') tables.setEntry(entry, (0x40_0001n << 12n) | PRESENT | WRITABLE);
        if (what === 'add') {
          pages.push(page);
          often.add(addressOf(page), 200);
        }
        domain.tick();
        const anew = new ReadBatch();
        for (const one of pages) anew.add(addressOf(one), 200);
        const other = new PagedAddressSpace(domain, MODE, tables.root);
        if (space.read(often) !== other.read(anew)) return false;
        for (let i = 0; i < pages.length; i++) {
          if (often.mapped(i) !== anew.mapped(i)) return false;
          if (often.fault(i)?.reason !== anew.fault(i)?.reason) return false;
          if (Buffer.compare(often.content(i), anew.content(i)) !== 0) return false;
        }
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.pass('fast-check found no counterexample');
});

test('random memory as page tables: bounded, no error but ours', (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 4096, maxLength: 4096 }),
      fc.array(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), { minLength: 1, maxLength: 8 }),
      fc.boolean(),
      (noise, addresses, selfReferential) => {
        const domain = new FakeDomain({ ram: [{ first: 0, count: 16 }], physicalBits: 52 });
        for (let frame = 0; frame < 16; frame++) {
          const bytes = noise.slice();
          for (let i = 0; i < 4096; i += 8) {
            // Entries that lead back into these frames, so that walks get deep.
            if (selfReferential) bytes.set([0x23, (noise[i]! & 0xf) << 4, 0, 0, 0, 0, 0, 0], i);
          }
          domain.image.store(frame * FRAME_SIZE, bytes);
        }
        const space = new PagedAddressSpace(domain, { ...MODE, physicalBits: 52 }, 0);
        const batch = new ReadBatch();
        for (const address of addresses) batch.add(guestVirtual(address), 5000);
        const incomplete = space.read(batch);
        // At most 4 tables for each of the parts (5000 bytes touch up to 3 pages) plus the parts themselves.
        return incomplete <= batch.count && domain.recorder.count('read') <= addresses.length * 3 * 5;
      },
    ),
    { numRuns: 500 },
  );
  t.pass();
});

test('more tables than the cache holds: results stay right', (t) => {
  const { domain, tables, space } = setUp();
  const frames = 1500;
  const batch = new ReadBatch();
  for (let i = 0; i < frames; i++) {
    // One page per last-level table: each read needs a table of its own.
    const address = BASE + BigInt(i) * (1n << 21n);
    tables.map(address, 0x10_000 + i);
    domain.image.store((0x10_000 + i) * FRAME_SIZE, Uint8Array.of(i & 0xff, i >> 8));
    batch.add(guestVirtual(address), 2);
  }
  t.is(space.read(batch), 0);
  for (let i = 0; i < frames; i++) t.is(batch.view.getUint16(batch.positions[i]!, true), i);
  tables.map(BASE, 0x10_000 + 77);
  domain.tick();
  t.is(space.read(batch), 0);
  t.is(batch.view.getUint16(batch.positions[0]!, true), 77);
});

test('the domain ends: the error comes through and nothing is read', (t) => {
  const { domain, tables, space } = setUp();
  tables.map(BASE, 0x2000);
  space.readU64(guestVirtual(BASE));
  domain.destroy();
  t.throws(() => space.readU64(guestVirtual(BASE)), { code: 'domain-gone' });
});

test('strings end at NUL, at the limit, or are a fault', (t) => {
  const { domain, tables, space } = setUp();
  tables.map(BASE, 0x2000);
  domain.image.store(0x2000 * FRAME_SIZE, Buffer.from('swapper/0\0rest'));
  domain.image.store(0x2001 * FRAME_SIZE - 3, Buffer.from('abc'));
  t.is(space.readString(guestVirtual(BASE), 16), 'swapper/0');
  t.is(space.readString(guestVirtual(BASE), 4), 'swap');
  t.throws(() => space.readString(guestVirtual(BASE + 4093n), 16), { code: 'translation-fault' });
});
