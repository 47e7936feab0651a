import test from 'ava';
import { type Fig9Sample, slowdowns } from './judge.ts';

function sample(round: number, mode: Fig9Sample['mode'], cpuMs: number, tookMs: number): Fig9Sample {
  return { round, mode, cpuMs, tookMs, weights: 'groups' };
}

test('a job is compared with the same job alone in the same round', (t) => {
  const samples = [
    sample(0, 'alone', 10, 10),
    sample(0, 'alone', 50, 50),
    sample(0, 'loaded', 10, 40),
    sample(0, 'preferred', 10, 11),
    sample(0, 'preferred', 50, 50),
    sample(1, 'alone', 10, 20),
    sample(1, 'preferred', 10, 30),
    sample(2, 'preferred', 10, 30),
  ];
  t.deepEqual(
    slowdowns(samples, 'loaded', () => true),
    [4],
  );
  t.deepEqual(
    slowdowns(samples, 'preferred', (ms) => ms < 20),
    [1.1, 1.5],
  );
  t.deepEqual(
    slowdowns(samples, 'preferred', (ms) => ms >= 20),
    [1],
  );
});
