/** Who ran when, and what of it was a mistake: pure. */

/** A stretch of time, in ms. */
export interface Stretch {
  readonly from: number;
  readonly to: number;
}

/** Makes stretches of what is looked at over and over. */
export class Stretches {
  readonly #list: { from: number; to: number }[] = [];
  #open = false;

  /** @param goesOn whether it is so now; each look stands for the time since the one before */
  look(goesOn: boolean, beforeMs: number, nowMs: number): void {
    if (!goesOn) this.#open = false;
    else if (this.#open) this.#list.at(-1)!.to = nowMs;
    else {
      this.#list.push({ from: beforeMs, to: nowMs });
      this.#open = true;
    }
  }

  get list(): readonly Stretch[] {
    return this.#list;
  }
}

/** Stretches in which any of them goes on. */
export function union(stretches: readonly Stretch[]): Stretch[] {
  const all: { from: number; to: number }[] = [];
  for (const { from, to } of stretches.toSorted((a, b) => a.from - b.from)) {
    const last = all.at(-1);
    if (last !== undefined && from <= last.to) last.to = Math.max(last.to, to);
    else all.push({ from, to });
  }
  return all;
}

/** Those of one process, with gaps that are no longer than `gapMs` taken for part of them. */
export function bridged(stretches: readonly Stretch[], gapMs: number): Stretch[] {
  return union(stretches.map(({ from, to }) => ({ from, to: to + gapMs }))).map(({ from, to }) => ({
    from,
    to: to - gapMs,
  }));
}

/** Stretches in which one of each goes on. */
export function overlap(some: readonly Stretch[], others: readonly Stretch[]): Stretch[] {
  return some.flatMap((one) =>
    others
      .map((other) => ({ from: Math.max(one.from, other.from), to: Math.min(one.to, other.to) }))
      .filter(({ from, to }) => from < to),
  );
}

export function total(stretches: readonly Stretch[]): number {
  return stretches.reduce((sum, { from, to }) => sum + to - from, 0);
}

/** One time that others began to want a CPU, all of them having rested. */
export interface Change {
  readonly atMs: number;
  /** From then to when the lowest was off its CPU for the last time in this period; 0 if it did not run in it. */
  readonly delayMs: number;
  /** How long it ran in the period. */
  readonly ranMs: number;
}

/**
 * @param lowest when the process of the lowest priority ran
 * @param others when any other wanted a CPU
 */
export function changesOf(lowest: readonly Stretch[], others: readonly Stretch[]): Change[] {
  return union(others).map((period) => {
    const wrong = overlap(lowest, [period]);
    const last = Math.max(period.from, ...wrong.map(({ to }) => to));
    return { atMs: period.from, delayMs: last - period.from, ranMs: total(wrong) };
  });
}
