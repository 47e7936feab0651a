import test from 'ava';
import { batchParts, boundOf, type ProtectSample } from './judge.ts';

function window(mode: ProtectSample['mode'], at: number, waitedMs: number, batchMs: number): ProtectSample {
  return { round: 0, mode, level: 0.1, window: at, ms: 2_000, ranMs: 100, waitedMs, batchMs };
}

test('the bound of a window is the part of its time that costs the service just what it may wait', (t) => {
  const alone = (waitedMs: number) => window('alone', 0, waitedMs, 0);
  // In two seconds: 400 ms of waiting, where 200 are allowed.
  t.is(boundOf(window('none', 0, 400, 1_000), alone(0)), 250);
  // 100 of them are the rest of the host's: a third of what the job costs is left.
  t.is(boundOf(window('none', 0, 400, 900), alone(100)), 150);
  t.is(boundOf(window('none', 0, 400, 900), alone(300)), 0);
  t.is(boundOf(window('none', 0, 200, 1_000), alone(100)), 500);
  t.is(boundOf(window('none', 0, 0, 1_900), alone(500)), 950);
});

test('what the job had is compared with the bound of the same windows of the same round', (t) => {
  const samples = [
    window('none', 0, 400, 1_000),
    window('alone', 0, 0, 5),
    window('none', 1, 0, 2_000),
    window('alone', 1, 0, 5),
    window('none', 2, 0, 2_000),
    window('protect', 0, 90, 400),
    window('protect', 1, 0, 1_600),
    window('protect', 2, 0, 1_600),
    { ...window('protect', 0, 0, 1), round: 1 },
  ];
  t.deepEqual(batchParts(samples, 'protect'), [(200 + 800) / (250 + 1_000)]);
  t.deepEqual(batchParts(samples, 'idle-only'), []);
});
