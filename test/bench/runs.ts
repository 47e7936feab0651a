/** A stretch of time in which something went on, in ms. */
export interface TimeSpan {
  readonly fromMs: number;
  toMs: number;
}

/** Cuts the life of a counter into stretches in which it counts: a longer gap than `gapMs` ends one. */
export class Runs {
  readonly list: TimeSpan[] = [];
  /** Gaps between two counts within a stretch, in ms: how exactly its ends are known. */
  readonly steps: number[] = [];
  readonly #gapMs: number;
  #value: bigint;

  constructor(gapMs: number, value: bigint) {
    this.#gapMs = gapMs;
    this.#value = value;
  }

  /** Takes in that the counter was at `value` at `nowMs`. */
  look(value: bigint, nowMs: number): void {
    if (value === this.#value) return;
    this.#value = value;
    const last = this.list.at(-1);
    if (last === undefined || nowMs - last.toMs > this.#gapMs) {
      this.list.push({ fromMs: nowMs, toMs: nowMs });
      return;
    }
    this.steps.push(nowMs - last.toMs);
    last.toMs = nowMs;
  }
}

/** How long each time that one thing began another still went on. */
export interface Delays {
  /** In ms. */
  readonly delays: number[];
  /** Times that the other went on until the first had ended. */
  readonly late: number;
  /** Times that the other did not go on when the first began. */
  readonly unfit: number;
}

/**
 * @param causes each but the last, which may not have ended
 * @param gapMs as of `effects`: what stood still for less went on
 */
export function delaysOf(causes: readonly TimeSpan[], effects: readonly TimeSpan[], gapMs: number): Delays {
  const delays: number[] = [];
  let late = 0;
  let unfit = 0;
  for (const { fromMs, toMs } of causes.slice(0, -1)) {
    const went = effects.some((run) => run.fromMs <= fromMs && run.toMs >= fromMs - gapMs);
    const last = effects.findLast((run) => run.fromMs < toMs);
    if (!went || last === undefined) unfit += 1;
    else if (last.toMs > toMs - gapMs) late += 1;
    else delays.push(Math.max(0, last.toMs - fromMs));
  }
  return { delays, late, unfit };
}
