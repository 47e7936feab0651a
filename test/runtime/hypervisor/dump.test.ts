import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import anyTest, { type TestFn } from 'ava';
import fc from 'fast-check';
import { DomschedError } from '../../../runtime/error.ts';
import { requireCapabilities } from '../../../runtime/hypervisor/capability.ts';
import { connect } from '../../../runtime/hypervisor/connect.ts';
import { DumpDomain } from '../../../runtime/hypervisor/dump/domain.ts';
import { machineFrame } from '../../../runtime/hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../../runtime/hypervisor/frame-batch.ts';
import { elfCore, framesOf, lime, note, xenCore } from './dump-files.ts';

const test = anyTest as TestFn<{ directory: string; write(content: Buffer): Promise<string> }>;

test.before(async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-dump-'));
  let count = 0;
  t.context = {
    directory,
    async write(content) {
      const file = path.join(directory, `dump-${count++}`);
      await writeFile(file, content);
      return file;
    },
  };
});
test.after.always((t) => rm(t.context.directory, { recursive: true, force: true }));

/** First byte of each frame, or null where it is not in the dump. */
function firstBytes(domain: DumpDomain, frames: readonly number[]): (number | null)[] {
  const batch = new FrameBatch();
  for (const frame of frames) batch.add(machineFrame(frame), 8, 16);
  const failed = domain.frames.read(batch);
  const result = frames.map((_, i) =>
    batch.status[i] === FRAME_STATUS.ok ? batch.bytes[batch.positions[i]!]! : null,
  );
  if (result.filter((byte) => byte === null).length !== failed)
    throw new Error('failures are not counted right');
  return result;
}

test('ELF core: pieces, holes, pieces that do not begin on a frame', async (t) => {
  const file = await t.context.write(
    elfCore([
      { physical: 0x10_0000, bytes: framesOf(3, 1) },
      { physical: 0x1_0000_0000, bytes: framesOf(2, 11) },
      { physical: 0x8_0800, bytes: framesOf(2, 21) },
    ]),
  );
  await using domain = new DumpDomain(file);
  t.is(domain.format, 'elf-core');
  t.is(domain.registers, undefined);
  // Of the last piece only the frame 0x81 is whole: it begins 0x800 bytes into it.
  t.deepEqual(
    firstBytes(domain, [0x100, 0x101, 0x102, 0x103, 0xff, 0x10_0000, 0x10_0001, 0x81, 0x80, 0x82]),
    [...[1, 2, 3, null, null, 11, 12, 21, null, null]],
  );
});

test("registers of QEMU's notes", async (t) => {
  const state = Buffer.alloc(440);
  state.writeUInt32LE(1, 0);
  state.writeUInt32LE(440, 4);
  // In the order of QEMUCPUState: 16 general registers from rax at 8, rip, rflags, ten segments, five controls.
  state.writeBigUInt64LE(0xffff_c900_0000_1238n, 8 + 6 * 8);
  state.writeBigUInt64LE(0xffff_ffff_8100_0000n, 8 + 16 * 8);
  state.writeBigUInt64LE(0x246n, 8 + 17 * 8);
  const segments = 8 + 18 * 8;
  state.writeUInt32LE(0x33, segments);
  state.writeBigUInt64LE(0xffff_8880_0000_0000n, segments + 4 * 24 + 16);
  state.writeUInt32LE(0xfff, segments + 9 * 24 + 4);
  state.writeBigUInt64LE(0xffff_fe00_0000_0000n, segments + 9 * 24 + 16);
  const controls = segments + 10 * 24;
  for (const [i, value] of [0x8005_0033n, 0n, 0x1000n, 0x12_3000n, 0x6f0n].entries()) {
    state.writeBigUInt64LE(value, controls + i * 8);
  }
  state.writeBigUInt64LE(0x7000n, controls + 5 * 8);
  const notes = Buffer.concat([
    note('CORE', 1, Buffer.alloc(336)),
    note('QEMU', 0, state),
    note('QEMU', 0, state),
  ]);
  await using domain = new DumpDomain(
    await t.context.write(elfCore([{ physical: 0, bytes: framesOf(1) }], notes)),
  );
  const registers = await domain.registers!.read();
  t.is(registers.length, 2);
  t.like(registers[1], {
    vcpu: 1,
    cr0: 0x8005_0033n,
    cr3: 0x12_3000n,
    cr4: 0x6f0n,
    rip: 0xffff_ffff_8100_0000n,
    rsp: 0xffff_c900_0000_1238n,
    rflags: 0x246n,
    gsBase: 0xffff_8880_0000_0000n,
    kernelGsBase: 0x7000n,
    idtBase: 0xffff_fe00_0000_0000n,
    idtLimit: 0xfff,
    cpl: 3,
  });
});

test("xl dump-core: a PV guest's pages by machine frame, others by guest frame", async (t) => {
  const context = Buffer.alloc(5168);
  context.writeBigUInt64LE(4n, 512);
  context.writeBigUInt64LE(0x77_7000n, 4984 + 24);
  context.writeBigUInt64LE(0xffff_8880_1234_0000n, 5152);
  const frames = [
    [0, 900],
    [1, 700],
    [2, 701],
  ] as const;
  const pv = await t.context.write(xenCore(frames, framesOf(3), true, context));
  await using domain = new DumpDomain(pv);
  t.is(domain.frames.space, 'machine');
  t.deepEqual(firstBytes(domain, [900, 700, 701, 0, 1]), [1, 2, 3, null, null]);
  t.like((await domain.registers!.read())[0], { cr3: 0x77_7000n, gsBase: 0xffff_8880_1234_0000n, cpl: 0 });
  await using other = new DumpDomain(await t.context.write(xenCore(frames, framesOf(3), false)));
  t.is(other.frames.space, 'guest');
  t.deepEqual(firstBytes(other, [0, 1, 2, 900]), [1, 2, 3, null]);
  t.is(other.registers, undefined);
});

test('LiME and raw memory, with and without a hole', async (t) => {
  const file = await t.context.write(
    lime([
      { physical: 0x1000, bytes: framesOf(2, 1) },
      { physical: 0x1_0000_0000, bytes: framesOf(1, 9) },
    ]),
  );
  await using domain = new DumpDomain(file);
  t.is(domain.format, 'lime');
  t.deepEqual(firstBytes(domain, [0, 1, 2, 3, 0x10_0000]), [null, 1, 2, null, 9]);
  const raw = await t.context.write(framesOf(4));
  await using flat = new DumpDomain(raw);
  t.deepEqual(firstBytes(flat, [0, 3, 4]), [1, 4, null]);
  await using host = await connect(`dump:${raw},low=${2 * 4096}`);
  await using split = (await host.open(raw)) as DumpDomain;
  t.deepEqual(firstBytes(split, [0, 1, 2, 0x10_0000, 0x10_0001]), [1, 2, null, 3, 4]);
});

test('compressed formats are refused with what to do', async (t) => {
  const file = await t.context.write(Buffer.concat([Buffer.from('KDUMP   '), framesOf(2)]));
  const error = t.throws(() => new DumpDomain(file), { instanceOf: DomschedError })!;
  t.is(error.code, 'dump-unsupported');
  t.regex(error.message, /ELF core/);
});

test('a dump can be neither written nor paused, by its type and at run time', async (t) => {
  await using domain = new DumpDomain(await t.context.write(framesOf(2)));
  t.throws(() => requireCapabilities(domain, 'writeFrames'), { code: 'capability-missing' });
  t.throws(() => requireCapabilities(domain, 'pause'), { code: 'capability-missing' });
  // @ts-expect-error the compiler refuses it
  t.is(domain.writeFrames, undefined);
});

test('files cut off or garbled anywhere: content or a typed error', async (t) => {
  const whole = [
    elfCore([{ physical: 0x10_0000, bytes: framesOf(2) }], note('QEMU', 0, Buffer.alloc(440))),
    xenCore([[0, 5]], framesOf(1), true, Buffer.alloc(5168)),
    lime([{ physical: 0x1000, bytes: framesOf(2) }]),
  ];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...whole),
      fc.integer({ min: 1, max: 20_000 }),
      fc.array(fc.record({ at: fc.nat(700), byte: fc.nat(255) }), { maxLength: 6 }),
      async (content, size, changes) => {
        const file = path.join(t.context.directory, 'fuzz');
        const bytes = Buffer.from(content.subarray(0, Math.min(size, content.length)));
        for (const { at, byte } of changes) if (at < bytes.length) bytes[at] = byte;
        await writeFile(file, bytes);
        try {
          await using domain = new DumpDomain(file);
          firstBytes(domain, [0, 1, 5, 0x100]);
          await domain.registers?.read();
          return true;
        } catch (error) {
          return error instanceof DomschedError;
        }
      },
    ),
    { numRuns: 1500 },
  );
  t.pass();
});
