/** A guest's progress at one look. */
export interface Advance {
  /** Another one whenever one of its CPUs switches tasks or takes a tick. */
  readonly count: number;
  /** No CPU has anything to run: the guest waits for time to pass, not for its host. */
  readonly idle: boolean;
}

/** One look counts for at most this time, in ms: twice the longest wait between two looks. */
const LOOK_MS = 40;
/** Hard stop at this multiple of the limit. */
const STRETCH = 4;

/**
 * Time budget in guest progress: the time between two looks counts only if the guest advanced or is idle, and at most
 * LOOK_MS of it, since a busy host pauses slowly and runs its guest little. Hard stop at 4 × the limit.
 */
export class Patience {
  readonly #limitMs: number;
  readonly #clock: () => number;
  readonly #begin: number;
  #last: number;
  #count: number | undefined;
  #usedMs = 0;
  #parts = 1;

  /** @param clock in ms */
  constructor(limitMs: number, clock: () => number = () => performance.now()) {
    this.#limitMs = limitMs;
    this.#clock = clock;
    this.#begin = clock();
    this.#last = this.#begin;
  }

  /** Counts the time since the last look. */
  look({ count, idle }: Advance): void {
    const now = this.#clock();
    if (idle || this.#count !== count) this.#usedMs += Math.min(now - this.#last, LOOK_MS);
    this.#last = now;
    this.#count = count;
  }

  /**
   * Restarts the budget after a step of a task in several parts; the hard stop stays.
   * @param parts number of parts, which multiplies the hard stop
   */
  renew(parts = 1): void {
    this.#usedMs = 0;
    this.#parts = Math.max(this.#parts, parts);
  }

  get over(): boolean {
    return (
      this.#usedMs >= this.#limitMs || this.#clock() - this.#begin >= STRETCH * this.#limitMs * this.#parts
    );
  }
}
