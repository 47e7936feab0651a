import { once } from 'node:events';
import fs from 'node:fs';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import anyTest, { type TestFn } from 'ava';
import { execa } from 'execa';
import fc from 'fast-check';
import { requireCapabilities } from '../../../runtime/hypervisor/capability.ts';
import { connect } from '../../../runtime/hypervisor/connect.ts';
import { DumpDomain } from '../../../runtime/hypervisor/dump/domain.ts';
import { machineFrame } from '../../../runtime/hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../../runtime/hypervisor/frame-batch.ts';
import { elfCore, firstBytes, framesOf, lime, note, xenCore } from './dump-files.ts';
import { fuzzDumps } from './fuzz.ts';

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

function framesFrom(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
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

test('ELF core: pieces in any order, all over each other, as of one mapping each: the first one is read', async (t) => {
  const piece = fc.record({ first: fc.nat(40), count: fc.integer({ min: 1, max: 12 }) });
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { minLength: 1, maxLength: 20 }), async (pieces) => {
      const model = new Map<number, number>();
      const parts = pieces.map(({ first, count }, index) => {
        const bytes = framesOf(count, 1 + index * 12);
        for (let i = 0; i < count; i++) if (!model.has(first + i)) model.set(first + i, bytes[i * 4096]!);
        return { physical: first * 4096, bytes };
      });
      const file = path.join(t.context.directory, 'overlapping');
      await writeFile(file, elfCore(parts));
      await using domain = new DumpDomain(file);
      const frames = Array.from({ length: 60 }, (_, frame) => frame);
      t.deepEqual(
        firstBytes(domain, frames),
        frames.map((frame) => model.get(frame) ?? null),
      );
      const regions = domain.frames.regions().flatMap(({ first, count }) => framesFrom(first, count));
      t.deepEqual(
        regions,
        [...model.keys()].sort((a, b) => a - b),
      );
    }),
    { numRuns: 100 },
  );
});

test('neighbours in memory, file and batch come by one read of the file, and no others do', async (t) => {
  const half = { offset: 2048, length: 2048 };
  const range = fc.record({
    frame: fc.nat(14),
    // The first half ends within its frame, the second one begins there.
    ...{ part: fc.constantFrom({ offset: 0, length: 4096 }, { offset: 0, length: 2048 }, half) },
  });
  // Neighbours in memory that lie apart in the file, a hole, and bytes that tell every place from every other.
  const bytes = (from: number, count: number) =>
    Buffer.from(Uint32Array.from({ length: count * 1024 }, (_, i) => from * 4096 + i * 4).buffer);
  const file = await t.context.write(
    elfCore([
      { physical: 6 * 4096, bytes: bytes(6, 6) },
      { physical: 0, bytes: bytes(0, 6) },
    ]),
  );
  await using domain = new DumpDomain(file);
  let reads = 0;
  const { readSync } = fs;
  const counted = (...given: Parameters<typeof readSync>) => {
    reads += 1;
    return readSync(...given);
  };
  fs.readSync = counted as typeof readSync;
  syncBuiltinESMExports();
  try {
    fc.assert(
      fc.property(fc.array(range, { minLength: 1, maxLength: 12 }), (ranges) => {
        const batch = new FrameBatch();
        for (const { frame, part } of ranges) batch.add(machineFrame(frame), part.offset, part.length);
        t.is(domain.frames.read(batch), ranges.filter(({ frame }) => frame > 11).length);
        for (const [i, { frame, part }] of ranges.entries()) {
          const found = batch.bytes.subarray(batch.positions[i]!, batch.positions[i]! + part.length);
          const there = bytes(frame, 1).subarray(part.offset, part.offset + part.length);
          t.is(batch.status[i], frame > 11 ? FRAME_STATUS.absent : FRAME_STATUS.ok);
          t.deepEqual(Buffer.from(found), frame > 11 ? Buffer.alloc(part.length) : there);
        }
      }),
    );
    const whole = new FrameBatch();
    for (let frame = 0; frame < 12; frame++) whole.add(machineFrame(frame), 0, 4096);
    reads = 0;
    t.is(domain.frames.read(whole), 0);
    t.is(reads, 2);
  } finally {
    fs.readSync = readSync;
    syncBuiltinESMExports();
  }
});

test('ELF core: more program headers than its own field can say, last frame first', async (t) => {
  const buffers = [framesOf(1, 1), framesOf(1, 2), framesOf(1, 3)];
  const count = 70_000;
  const pieces = Array.from({ length: count }, (_, i) => ({
    physical: (count - 1 - i) * 2 * 4096,
    bytes: buffers[i % 3]!,
  }));
  await using domain = new DumpDomain(await t.context.write(elfCore(pieces)));
  const at = (i: number) => (count - 1 - i) * 2;
  t.deepEqual(firstBytes(domain, [at(0), at(1), at(65_535), at(69_999), 1]), [
    ...[1, 2, (65_535 % 3) + 1, (69_999 % 3) + 1, null],
  ]);
  t.is(domain.frames.regions().length, count);
});

test('ELF files that are no dump of a guest are named', async (t) => {
  const whole = elfCore([{ physical: 0, bytes: framesOf(2) }]);
  const changed = (at: number, byte: number) => {
    const bytes = Buffer.from(whole);
    bytes[at] = byte;
    return t.context.write(bytes);
  };
  const processCore = elfCore(
    [
      { physical: 0, bytes: framesOf(2) },
      { physical: 0, bytes: framesOf(3) },
    ],
    note('CORE', 3, Buffer.alloc(136)),
  );
  for (const [file, named] of [
    [await changed(16, 2), /a program or a kernel .*dump-guest-memory/],
    [await changed(18, 183), /core of another kind of machine .*machine 183/],
    [await changed(4, 1), /core of another kind of machine .*class 1/],
    [await t.context.write(processCore), /the core of a process/],
  ] as const) {
    const error = t.throws(() => new DumpDomain(file), { code: 'dump-unsupported' });
    t.regex(error!.message, named);
  }
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

test('what is no file, or none that can be read, is a typed error at once', async (t) => {
  const fifo = path.join(t.context.directory, 'fifo');
  await execa('mkfifo', [fifo]);
  const socket = path.join(t.context.directory, 'socket');
  const server = createServer().listen(socket);
  await once(server, 'listening');
  t.teardown(() => server.close());
  const empty = await t.context.write(Buffer.alloc(0));
  for (const [file, named] of [
    [t.context.directory, /is a directory: name the file in it/],
    [fifo, /is a pipe: .*copy it into a file/],
    ['/dev/zero', /is a device: .*copy it into a file/],
    [socket, /it is a socket.*qemu:unix:/],
    [empty, /is empty/],
    [path.join(empty, 'below'), /there is no such file/],
    [path.join(t.context.directory, 'absent'), /there is no such file/],
  ] as const) {
    const error = t.throws(() => new DumpDomain(file), { code: 'host-unreachable' }, file);
    t.regex(error!.message, named);
    t.true(error!.message.includes(file));
    await using host = await connect(`dump:${file}`);
    const [listing] = await host.list();
    t.is(listing && 'error' in listing ? listing.error.code : 'none', 'host-unreachable');
  }
});

test('a file that is cut while it is read: an error, not memory that is not there', async (t) => {
  const file = await t.context.write(elfCore([{ physical: 0, bytes: framesOf(4) }]));
  await using domain = new DumpDomain(file);
  t.deepEqual(firstBytes(domain, [3, 4]), [4, null]);
  await truncate(file, 3 * 4096);
  t.deepEqual(firstBytes(domain, [0]), [1]);
  t.throws(() => firstBytes(domain, [3]), { code: 'dump-corrupt' });
});

test.serial(
  'a file system that gives less than was asked for, as 9p does, gives the rest when asked again',
  async (t) => {
    const file = await t.context.write(
      xenCore(
        [
          [0, 7],
          [1, 5],
          [2, 9],
        ],
        framesOf(3),
        true,
      ),
    );
    const { readSync } = fs;
    const few = (fd: number, into: Uint8Array, at: number, length: number, place: number) =>
      readSync(fd, into, at, Math.min(length, 37), place);
    fs.readSync = few as typeof readSync;
    syncBuiltinESMExports();
    try {
      const domain = new DumpDomain(file);
      t.deepEqual(firstBytes(domain, [7, 5, 9, 0]), [1, 2, 3, null]);
    } finally {
      fs.readSync = readSync;
      syncBuiltinESMExports();
    }
  },
);

test('a dump can be neither written nor paused, by its type and at run time', async (t) => {
  await using domain = new DumpDomain(await t.context.write(framesOf(2)));
  t.throws(() => requireCapabilities(domain, 'writeFrames'), { code: 'capability-missing' });
  t.throws(() => requireCapabilities(domain, 'pause'), { code: 'capability-missing' });
  // @ts-expect-error the compiler refuses it
  t.is(domain.writeFrames, undefined);
});

test('dumps cut off or garbled anywhere: content or a typed error, soon, in little memory', async (t) => {
  const report = await fuzzDumps({ runs: 1000, seed: Date.now() % 2 ** 31 });
  t.true(report.outcomes.accepted! > 0);
  t.true(report.outcomes['dump-corrupt']! > 0);
  t.deepEqual(
    Object.keys(report.outcomes).filter(
      (code) => !['accepted', 'dump-corrupt', 'dump-unsupported'].includes(code),
    ),
    [],
  );
});
