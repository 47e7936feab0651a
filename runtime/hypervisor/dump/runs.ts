/** Places that follow each other in a dump's address space and in its file alike: frames, or bytes. */
export interface DumpRun {
  readonly first: number;
  readonly count: number;
  /** Of the first place, in the file. */
  readonly offset: number;
}

/** Finds where in a file a place is, whatever order the runs came in and however they overlap. */
export class RunIndex {
  readonly runs: readonly DumpRun[];
  readonly #first: Float64Array;
  readonly #unit: number;

  /**
   * @param runs those that come earlier win where several have one place
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

  /** Where the first run begins that lies behind a place. */
  nextAfter(place: number): number | undefined {
    return this.runs[this.#after(place)]?.first;
  }

  /** Where a place is in the file, or -1. */
  offsetOf(place: number): number {
    const run = this.runAt(place);
    return run === undefined ? -1 : run.offset + (place - run.first) * this.#unit;
  }

  /** Number of the first run that begins behind a place. */
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

/** Sorted runs that do not overlap. By halves, so that a million runs that are all over each other take no time. */
function disjoint(runs: readonly DumpRun[], unit: number): readonly DumpRun[] {
  if (runs.length < 2) return runs.filter(({ count }) => count > 0);
  const middle = runs.length >> 1;
  return overlay(disjoint(runs.slice(0, middle), unit), disjoint(runs.slice(middle), unit), unit);
}

/** All of `upper`, and of `lower` what lies beside it; both are sorted and each is free of overlaps. */
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
      // It may reach into the next one of `lower` too.
      if (from > end) break;
      result.push(over);
    }
    keep(end);
  }
  for (; next < upper.length; next++) result.push(upper[next]!);
  return result;
}
