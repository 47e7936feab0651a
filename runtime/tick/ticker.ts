import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Schedules ticks at whole multiples of an interval since the start, so neither a long tick nor a late timer shifts the
 * following ones. One may be brought forward; then they are counted from there. A tick that is still late when the next is due is counted as missed and not made up for.
 */
export class Ticker {
  #intervalMs: number;
  #nextMs: number;
  #hurry: (() => void) | undefined;
  readonly #now: () => number;
  readonly #wait: (ms: number, signal: AbortSignal) => Promise<unknown>;

  constructor(
    intervalMs: number,
    now: () => number = () => performance.now(),
    wait = (ms: number, signal: AbortSignal): Promise<unknown> => sleep(ms, undefined, { signal }),
  ) {
    this.#intervalMs = intervalMs;
    this.#now = now;
    this.#nextMs = now();
    this.#wait = wait;
  }

  /** Changes the interval, counted from when the last tick was due. */
  set intervalMs(value: number) {
    if (value === this.#intervalMs) return;
    this.#nextMs += value - this.#intervalMs;
    this.#intervalMs = value;
  }

  /** Makes the tick that is waited for due now. */
  hurry(): void {
    this.#hurry?.();
  }

  /**
   * Waits until the next tick is due.
   * @returns how many ticks were left out before it, because the previous one took too long
   * @throws AbortError
   */
  async next(signal: AbortSignal): Promise<number> {
    const late = Math.max(0, this.#now() - this.#nextMs);
    const missed = Math.floor(late / this.#intervalMs);
    this.#nextMs += missed * this.#intervalMs;
    const wait = this.#nextMs - this.#now();
    if (wait > 0 && (await this.#isHurried(wait, signal))) this.#nextMs = this.#now();
    signal.throwIfAborted();
    this.#nextMs += this.#intervalMs;
    return missed;
  }

  async #isHurried(ms: number, signal: AbortSignal): Promise<boolean> {
    const { promise: hurried, resolve } = Promise.withResolvers<true>();
    this.#hurry = () => resolve(true);
    try {
      return await Promise.race([this.#wait(ms, signal).then(() => false), hurried]);
    } finally {
      this.#hurry = undefined;
    }
  }

  /** Yields {@link next} until the signal aborts. */
  async *ticks(signal: AbortSignal): AsyncGenerator<number> {
    try {
      for (;;) yield await this.next(signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}
