import test from 'ava';
import fc from 'fast-check';
import { FRAME_SIZE, machineFrame } from '../../../../runtime/hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../../../runtime/hypervisor/frame-batch.ts';
import { FakeXen } from './fake-xen.ts';

/** What a guest has in a frame: no two words of its memory are alike. */
function pattern(frame: number): Uint8Array {
  const words = new Uint32Array(FRAME_SIZE / 4);
  for (let i = 0; i < words.length; i++) words[i] = frame * 1024 + i;
  return new Uint8Array(words.buffer);
}

async function guest(frames: number) {
  const xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web', firstFrame: 70_000, frames });
  for (let i = 0; i < frames; i++) xen.store(5, 70_000 + i, 0, pattern(70_000 + i));
  const host = await xen.connect();
  const domain = await host.open('5');
  return {
    xen,
    domain,
    async [Symbol.asyncDispose]() {
      await host.close();
      xen[Symbol.dispose]();
    },
  };
}

test('ranges of any place and length read as the guest has them', async (t) => {
  await using setup = await guest(64);
  const { frames } = setup.domain;
  t.is(frames.space, 'machine');
  const range = fc.record({
    frame: fc.integer({ min: 70_000, max: 70_063 }),
    offset: fc.nat(FRAME_SIZE - 1),
    length: fc.integer({ min: 1, max: 600 }),
  });
  const batch = new FrameBatch();
  fc.assert(
    fc.property(fc.array(range, { minLength: 1, maxLength: 300 }), (ranges) => {
      batch.clear();
      for (const { frame, offset, length } of ranges) {
        batch.add(machineFrame(frame), offset, Math.min(length, FRAME_SIZE - offset));
      }
      if (frames.read(batch) !== 0) return false;
      return ranges.every(({ frame, offset, length }, i) => {
        const size = Math.min(length, FRAME_SIZE - offset);
        const found = batch.bytes.subarray(batch.positions[i], batch.positions[i]! + size);
        return Buffer.compare(found, pattern(frame).subarray(offset, offset + size)) === 0;
      });
    }),
    { numRuns: 60 },
  );
  t.true(setup.xen.mappedPages(5) <= 64);
});

test('a frame is mapped once; what the guest writes is seen in the kept mapping', async (t) => {
  await using setup = await guest(4);
  const batch = new FrameBatch();
  for (const frame of [70_001, 70_002, 70_001]) batch.add(machineFrame(frame), 8, 4);
  t.is(setup.domain.frames.read(batch), 0);
  const calls = setup.xen.get('mapped_calls');
  t.is(setup.xen.mappedPages(5), 2);
  setup.xen.store(5, 70_002, 8, Uint8Array.of(1, 2, 3, 4));
  setup.domain.tick();
  t.is(setup.domain.frames.read(batch), 0);
  t.is(batch.view.getUint32(batch.positions[1]!, true), 0x04030201);
  t.is(setup.xen.get('mapped_calls'), calls);
});

test('an error of one page is its own: the others are read, and it is said why', async (t) => {
  await using setup = await guest(8);
  setup.xen.frame(5, 70_003, 'absent');
  setup.xen.frame(5, 70_004, 'denied');
  const batch = new FrameBatch();
  for (const frame of [70_002, 70_003, 70_004, 70_005, 99_999]) batch.add(machineFrame(frame), 0, 16);
  batch.bytes.fill(0xee);
  t.is(setup.domain.frames.read(batch), 3);
  const { ok, absent, denied } = FRAME_STATUS;
  t.deepEqual([...batch.status.subarray(0, 5)], [ok, absent, denied, ok, absent]);
  t.is(batch.view.getUint32(batch.positions[3]!, true), 70_005 * 1024);
  const failed = batch.bytes.subarray(batch.positions[1]!, batch.positions[1]! + 16);
  t.true(failed.every((byte) => byte === 0));
  // Given back to the guest meanwhile: asked for again, not remembered as absent.
  setup.xen.frame(5, 70_003, 'normal');
  t.is(setup.domain.frames.read(batch), 2);
});

test('more frames than are kept: each reads right, and no more than the bound stay mapped', async (t) => {
  const all = 4096;
  const xen = new FakeXen();
  xen.domain({ domid: 5, name: 'big', firstFrame: 0, frames: all });
  xen.domain({ domid: 6, name: 'other', firstFrame: 50_000, frames: 64 });
  for (let i = 0; i < all; i += 97) xen.store(5, i, 0, pattern(i));
  const host = await xen.connect();
  const domain = await host.open('5');
  const batch = new FrameBatch();
  for (let round = 0; round < 3; round++) {
    // Odd numbers of frames at a time, so that runs do not end where the window does.
    for (let first = 0; first < all; first += 251) {
      batch.clear();
      for (let i = first; i < Math.min(all, first + 251); i++) batch.add(machineFrame(i), 0, FRAME_SIZE);
      t.is(domain.frames.read(batch), 0);
      const bad = [...Array(batch.count).keys()].filter((i) => {
        const frame = first + i;
        const found = batch.bytes.subarray(batch.positions[i], batch.positions[i]! + FRAME_SIZE);
        const expected = frame % 97 === 0 ? pattern(frame) : new Uint8Array(FRAME_SIZE);
        return Buffer.compare(found, expected) !== 0;
      });
      t.deepEqual(bad, []);
    }
    t.true(xen.mappedPages(5) <= 4096);
  }
  await domain.close();
  t.is(xen.mappedPages(5), 0);
  await host.close();
  xen[Symbol.dispose]();
});

test('writes go to the guest, and are mapped to be written no longer than that takes', async (t) => {
  await using setup = await guest(4);
  const { writeFrames, frames } = setup.domain;
  writeFrames!.write([
    { frame: machineFrame(70_001), offset: 16, bytes: Uint8Array.of(9, 8, 7, 6, 5, 4, 3, 2) },
    { frame: machineFrame(70_003), offset: 4088, bytes: Uint8Array.of(1, 1, 2, 3, 5, 8, 13, 21) },
    { frame: machineFrame(70_001), offset: 18, bytes: Uint8Array.of(0) },
  ]);
  t.deepEqual([...setup.xen.load(5, 70_001, 16, 8)], [9, 8, 0, 6, 5, 4, 3, 2]);
  t.deepEqual([...setup.xen.load(5, 70_003, 4088, 8)], [1, 1, 2, 3, 5, 8, 13, 21]);
  t.is(setup.xen.mappedPages(5), 0);
  const batch = new FrameBatch();
  batch.add(machineFrame(70_001), 16, 8);
  frames.read(batch);
  t.is(batch.bytes[batch.positions[0]!], 9);
});

test('one frame that cannot be written: none is', async (t) => {
  await using setup = await guest(4);
  setup.xen.frame(5, 70_002, 'readOnly');
  const before = setup.xen.load(5, 70_001, 0, 8);
  const error = await t.throwsAsync(
    async () =>
      setup.domain.writeFrames!.write([
        { frame: machineFrame(70_001), offset: 0, bytes: new Uint8Array(8) },
        { frame: machineFrame(70_002), offset: 0, bytes: new Uint8Array(8) },
      ]),
    { code: 'frame-unmapped' },
  );
  t.is((error as unknown as { details: { index: number } }).details.index, 1);
  t.deepEqual(setup.xen.load(5, 70_001, 0, 8), before);
  t.is(setup.xen.mappedPages(5), 0);
  t.throws(
    () =>
      setup.domain.writeFrames!.write([
        { frame: machineFrame(70_001), offset: 4090, bytes: new Uint8Array(8) },
      ]),
    { code: 'frame-unmapped' },
  );
});

test('a map call that fails as a whole: an error, nothing mapped, and the next one works', async (t) => {
  await using setup = await guest(4);
  const batch = new FrameBatch();
  batch.add(machineFrame(70_001), 0, 4);
  setup.xen.fail('map', 12);
  t.throws(() => setup.domain.frames.read(batch), { code: 'host-unreachable' });
  t.is(setup.xen.mappedPages(5), 0);
  t.is(setup.domain.frames.read(batch), 0);
  t.is(batch.view.getUint32(batch.positions[0]!, true), 70_001 * 1024);
});

test('a domain that is being torn down: gone, and nothing of it stays mapped', async (t) => {
  await using setup = await guest(4);
  const batch = new FrameBatch();
  batch.add(machineFrame(70_001), 0, 4);
  setup.domain.frames.read(batch);
  t.is(setup.xen.mappedPages(5), 1);
  setup.xen.end(5, true);
  const more = new FrameBatch();
  more.add(machineFrame(70_002), 0, 4);
  t.throws(() => setup.domain.frames.read(more), { code: 'domain-gone' });
  t.is(await setup.domain.state(), 'gone');
  t.is(setup.xen.mappedPages(5), 0);
  t.throws(() => setup.domain.frames.read(batch), { code: 'domain-gone' });
  t.throws(
    () =>
      setup.domain.writeFrames!.write([{ frame: machineFrame(70_001), offset: 0, bytes: Uint8Array.of(1) }]),
    { code: 'domain-gone' },
  );
});

test('frame numbers of an HVM guest are looked up anew under a pause', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 7, name: 'pvh', hvm: true, firstFrame: 0 });
  await using host = await xen.connect();
  const domain = await host.open('7');
  t.is(domain.frames.space, 'guest');
  const batch = new FrameBatch();
  batch.add(machineFrame(1), 0, 4);
  domain.frames.read(batch);
  const calls = xen.get('mapped_calls');
  domain.tick();
  domain.frames.read(batch);
  t.is(xen.get('mapped_calls'), calls);
  await using guard = await domain.pause!.acquire();
  t.true(guard.valid);
  t.is(xen.mappedPages(7), 0);
  domain.frames.read(batch);
  t.is(xen.get('mapped_calls'), calls + 1);
});
