import test from 'ava';
import { besideAlone, type Fig6Sample, slowerBy } from './judge.ts';

/** A window of two seconds. */
function sample(
  round: number,
  mode: Fig6Sample['mode'],
  pages: number,
  webMs: number,
  otherMs = 0,
): Fig6Sample {
  return { round, mode, seconds: 2, pages, webMs, otherMs };
}

test('a page’s CPU time, of both domains, is compared with that of lighttpd alone in the same round', (t) => {
  const samples = [
    sample(0, 'alone', 200, 1_000),
    sample(0, 'one domain', 100, 1_000),
    sample(0, 'two domains', 100, 500, 1_500),
    sample(0, 'held', 200, 1_000, 10),
    // So many pages fewer, but no more time for each: somebody else had the host.
    sample(1, 'alone', 100, 500),
    sample(1, 'held', 50, 250),
    sample(2, 'held', 50, 999),
  ];
  t.deepEqual(slowerBy(samples, 'one domain'), [50]);
  t.deepEqual(slowerBy(samples, 'two domains'), [75]);
  t.deepEqual(
    slowerBy(samples, 'held').map((percent) => Math.round(percent * 100) / 100),
    [0.99, 0],
  );
  t.deepEqual(
    besideAlone(samples, 'held', (alone, { pages }) => alone.pages - pages),
    [0, 50],
  );
});
