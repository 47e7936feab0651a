import test from 'ava';
import { type Fig7Sample, losses } from './judge.ts';

function sample(round: number, way: Fig7Sample['way'], pi1: number, pi2: number, waited = 0): Fig7Sample {
  // A window in which the vCPU was paused neither ran nor waited.
  const ran = way === 'paper' ? 0.5 - waited : 1 - waited;
  return { intervalMs: 1, round, way, pi1, pi2, ran, waited, looks: 1, cpuMsPerLook: 1 };
}

test('work lost is against the window of the same round in which nobody looked', (t) => {
  const samples = [
    sample(0, 'none', 100, 300),
    sample(0, 'ours', 90, 300),
    sample(0, 'paper', 50, 150),
    sample(1, 'none', 200, 200),
    sample(1, 'ours', 200, 220),
  ];
  const near = (found: number[], wanted: number[]) =>
    t.deepEqual(
      found.map((value) => Math.round(value * 1e6) / 1e6),
      wanted,
    );
  near(losses(samples, 'ours', 'pi1'), [10, 0]);
  near(losses(samples, 'ours', 'both'), [2.5, -5]);
  near(losses(samples, 'paper', 'both'), [50]);
});

test('time in which the vCPU waited for the host is no loss, time in which it was paused is', (t) => {
  // Half the time the host ran something else, and so half the work was done.
  const busy = [sample(0, 'none', 100, 100), sample(0, 'ours', 50, 50, 0.5)];
  t.deepEqual(losses(busy, 'ours', 'both'), [0]);
  const paused = [sample(0, 'none', 100, 100), sample(0, 'paper', 25, 25, 0.25)];
  t.deepEqual(losses(paused, 'paper', 'both'), [50]);
});
