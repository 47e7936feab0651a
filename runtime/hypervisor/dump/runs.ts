/** Places (frames or bytes) that are contiguous both in a dump's address space and in its file. */
export interface DumpRun {
  readonly first: number;
  readonly count: number;
  /** Offset of the first place in the file. */
  readonly offset: number;
}

/** Finds the file offset of a place, even if runs are unordered and overlap. */
export class RunIndex {
  readonly runs: readonly DumpRun[];
  readonly #first: Float64Array;
  readonly #unit: number;

  /**
   * @param runs where several have the same place, the earlier one counts
   * @param unit bytes of one place
   */
  constructor(runs: readonly DumpRun[], unit: number) {
    this.runs = disjoint(runs, unit);
    this.#first = Float64Array.from(this.runs, ({ first }) => first);
    this.#unit = unit;
  }

  /** The run that has a place, or undefined. */
  runAt(place: number): DumpRun | undefined {
    const run = this.runs[this.#after(place) - 1];
    return run !== undefined && place < run.first + run.count ? run : undefined;
  }

  /** Start of the first run that begins behind a place. */
  nextAfter(place: number): number | undefined {
    return this.runs[this.#after(place)]?.first;
  }

  /** Offset of a place in the file, or -1. */
  offsetOf(place: number): number {
    const run = this.runAt(place);
    return run === undefined ? -1 : run.offset + (place - run.first) * this.#unit;
  }

  /** Index of the first run that begins behind a place. */
  #after(place: number): number {
    let low = 0;
    let high = this.#first.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#first[middle]! > place) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** Sorted runs without overlaps. Divide and conquer keeps a million overlapping runs fast. */
function disjoint(runs: readonly DumpRun[], unit: number): readonly DumpRun[] {
  if (runs.length < 2) return runs.filter(({ count }) => count > 0);
  const middle = runs.length >> 1;
  return overlay(disjoint(runs.slice(0, middle), unit), disjoint(runs.slice(middle), unit), unit);
}

/** All of `upper`, and the parts of `lower` beside it; both are sorted and free of overlaps. */
function overlay(upper: readonly DumpRun[], lower: readonly DumpRun[], unit: number): DumpRun[] {
  const result: DumpRun[] = [];
  let next = 0;
  for (const { first, count, offset } of lower) {
    const end = first + count;
    let from = first;
    const keep = (to: number) => {
      if (to > from) result.push({ first: from, count: to - from, offset: offset + (from - first) * unit });
    };
    for (; next < upper.length && upper[next]!.first < end; next++) {
      const over = upper[next]!;
      keep(over.first);
      from = Math.max(from, over.first + over.count);
      // It may overlap the next run of `lower` too.
      if (from > end) break;
      result.push(over);
    }
    keep(end);
  }
  for (; next < upper.length; next++) result.push(upper[next]!);
  return result;
}
