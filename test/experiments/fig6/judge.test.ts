import test from 'ava';
import { type Fig6Sample, slowerBy } from './judge.ts';

test('what is served is compared with what lighttpd serves alone in the same round', (t) => {
  const sample = (round: number, mode: Fig6Sample['mode'], perSecond: number) => ({ round, mode, perSecond });
  const samples = [
    sample(0, 'alone', 200),
    sample(0, 'one domain', 100),
    sample(0, 'held', 198),
    sample(1, 'alone', 100),
    sample(1, 'held', 101),
    sample(2, 'held', 50),
  ];
  t.deepEqual(slowerBy(samples, 'one domain'), [50]);
  t.deepEqual(
    slowerBy(samples, 'held').map((percent) => Math.round(percent * 1e6) / 1e6),
    [1, -1],
  );
});
