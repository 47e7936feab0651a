import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Schedules ticks at whole multiples of an interval since the start, so neither a long tick nor a late timer shifts the
 * following ones. A tick that is still late when the next is due is counted as missed and not made up for.
 */
export class Ticker {
  #intervalMs: number;
  #nextMs: number;
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
    if (wait > 0) await this.#wait(wait, signal);
    signal.throwIfAborted();
    this.#nextMs += this.#intervalMs;
    return missed;
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
