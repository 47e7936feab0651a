import test from 'ava';
import { estimate, pairsOf, turns } from './pairs.ts';

test('the interval of a median is between the ranks that tables of the sign test have', (t) => {
  // Two-sided, 5 %: the critical value is the most values on one side that are still too few.
  for (const [n, critical] of [
    [6, 0],
    [8, 0],
    [9, 1],
    [10, 1],
    [20, 5],
    [25, 7],
    [30, 9],
    [40, 13],
  ] as const) {
    const ranks = Array.from({ length: n }, (_, i) => i + 1);
    t.deepEqual(
      estimate(ranks.toReversed()),
      { value: (n + 1) / 2, from: critical + 1, to: n - critical },
      `${n}`,
    );
  }
  t.throws(() => estimate([1, 2, 3, 4, 5]), { instanceOf: RangeError });
});

test('windows are compared with their neighbours, in both orders', (t) => {
  t.deepEqual(turns(4), [false, true, true, false, false, true, true, false]);
  t.deepEqual(pairsOf([1, 20, 30, 4, 5, 60, 70, 8]), {
    different: [
      [1, 20],
      [4, 30],
      [5, 60],
      [8, 70],
    ],
    same: [[4, 5]],
  });
});

test('what drifts evenly is no difference', (t) => {
  const drifting = turns(30).map((_, i) => 100 + i);
  t.is(estimate(pairsOf(drifting).different.map(([a, b]) => b - a)).value, 0);
});
