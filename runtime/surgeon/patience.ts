/** How far a guest had come at one look. */
export interface Advance {
  /** Grows whenever one of its CPUs switches tasks or takes a tick. */
  readonly count: bigint;
  /** No CPU has anything to run: it waits for time to pass, not for its host. */
  readonly idle: boolean;
}

/** The most that one look may count for, in ms: twice the longest wait between two looks. */
const LOOK_MS = 40;
/** How much longer than asked for it may take in all. */
const STRETCH = 4;

/**
 * How long to go on trying. What a try needs is another moment of the guest, not time: so the time between two looks
 * counts only when the guest has got further meanwhile, and of a long one (a host that is busy pauses slowly and leaves
 * a guest little) no more than it would take elsewhere. All of it ends at four times the limit at last.
 */
export class Patience {
  readonly #limitMs: number;
  readonly #clock: () => number;
  readonly #begin: number;
  #last: number;
  #count: bigint | undefined;
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
   * What is asked for comes about step by step, and one was made: only the end of it all stays as it is.
   * @param parts how many times as much it is as what is done at once
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
