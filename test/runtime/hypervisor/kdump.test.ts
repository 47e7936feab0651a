import { writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { DumpDomain } from '../../../runtime/hypervisor/dump/domain.ts';
import { scratchFolder } from '../../extractor/fixture.ts';
import { firstBytes, flattened, framesOf, kdump, note } from './dump-files.ts';

const frames = fc.uniqueArray(fc.oneof(fc.nat(100), fc.nat(70_000)), { minLength: 1, maxLength: 40 });

test('kdump, plain and flattened: every frame that is in it, whatever its page is packed with', async (t) => {
  const file = path.join(scratchFolder(t), 'dump');
  await fc.assert(
    fc.asyncProperty(frames, fc.boolean(), async (present, flat) => {
      const pages = new Map(present.map((frame, index) => [frame, framesOf(1, index + 1)]));
      const whole = kdump(pages);
      // What is written first is written over.
      const earlier = [{ at: 4090, bytes: Buffer.alloc(6000, 0x55) }];
      writeFileSync(file, flat ? flattened(whole, earlier) : whole);
      await using domain = new DumpDomain(file);
      const asked = [...present, ...present.map((frame) => frame + 1), 70_001, 2 ** 30];
      t.deepEqual(
        firstBytes(domain, asked),
        asked.map((frame) => pages.get(frame)?.[0] ?? null),
      );
      const regions = domain.frames.regions();
      t.is(
        regions.reduce((sum, { count }) => sum + count, 0),
        present.length,
      );
      for (const { first, count } of regions) for (let i = 0; i < count; i++) t.true(pages.has(first + i));
    }),
    { numRuns: 60 },
  );
});

test('kdump: pages that are not packed for us are named, damaged ones are an error', (t) => {
  const file = path.join(scratchFolder(t), 'dump');
  const whole = kdump(new Map([[0, framesOf(1)]]), note('CORE', 1, Buffer.alloc(336)));
  const descriptor = 4096 * 5;
  for (const [flag, code, named] of [
    [2, 'dump-unsupported', /packed with LZO; take it again with -z/],
    [4, 'dump-unsupported', /packed with snappy; take it again with -z/],
    [1, 'dump-corrupt', /page at/],
    [0x20, 'dump-corrupt', /page at/],
  ] as const) {
    whole.writeUInt32LE(flag, descriptor + 12);
    writeFileSync(file, whole);
    t.regex(t.throws(() => new DumpDomain(file), { code })!.message, named);
  }
});

test('flattened within flattened, and one that is cut off', (t) => {
  const file = path.join(scratchFolder(t), 'dump');
  const once = flattened(kdump(new Map([[0, framesOf(1)]])), []);
  writeFileSync(file, flattened(once, []));
  t.throws(() => new DumpDomain(file), { code: 'dump-corrupt' });
  writeFileSync(file, once.subarray(0, once.length - 16));
  t.throws(() => new DumpDomain(file), { code: 'dump-corrupt' });
});
