import { median } from './harness.ts';

/** A figure, and between what it would be in 95 of 100 repetitions of the whole measurement, or some more. */
export interface Estimate {
  readonly value: number;
  readonly from: number;
  readonly to: number;
}

/** Values of two windows, the second of which is compared with the first. */
export type Pair = readonly [first: number, second: number];

/** So many values have an interval at all: of fewer even the smallest and the largest are too often on one side. */
export const FEWEST = 6;

/**
 * The median, with an interval that supposes nothing about how the values are spread: from the k-th smallest to the
 * k-th largest, where k of n values below their true median are as rare as k heads in n tosses of a coin.
 * @throws RangeError for fewer values than {@link FEWEST}
 */
export function estimate(values: readonly number[]): Estimate {
  const sorted = values.toSorted((a, b) => a - b);
  const n = sorted.length;
  let k = 0;
  let exactly = 0.5 ** n;
  for (let atMost = exactly; atMost <= 0.025; atMost += exactly) {
    k += 1;
    exactly *= (n - k + 1) / k;
  }
  if (k === 0) throw new RangeError(`${n} values are too few for an interval`);
  return { value: median(sorted), from: sorted[k - 1]!, to: sorted[n - k]! };
}

/** Turns of two ways to compare, A B B A A B B A: what drifts falls on both alike. `true` is B. */
export function turns(pairs: number): boolean[] {
  return Array.from({ length: pairs }, (_, i) => (i % 2 === 0 ? [false, true] : [true, false])).flat();
}

/** Takes values of {@link turns} apart: pairs of A and B, and in between neighbours that are both of A. */
export function pairsOf(values: readonly number[]): { different: Pair[]; same: Pair[] } {
  const different: Pair[] = [];
  const same: Pair[] = [];
  for (let i = 0; i < values.length; i += 2) {
    const [one, other, next] = [values[i]!, values[i + 1]!, values[i + 2]];
    const isTurned = i % 4 === 2;
    different.push(isTurned ? [other, one] : [one, other]);
    if (isTurned && next !== undefined) same.push([other, next]);
  }
  return { different, same };
}
