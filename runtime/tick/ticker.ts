import { setTimeout as sleep } from 'node:timers/promises';

/** A tick is due at whole intervals from the start, however long the ticks take. */
export interface Due {
  /** Ticks left out because the previous one took too long. */
  readonly missed: number;
}

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

  /** Waits until the next tick is due. @throws AbortError */
  async next(signal: AbortSignal): Promise<Due> {
    const late = Math.max(0, this.#now() - this.#nextMs);
    const missed = Math.floor(late / this.#intervalMs);
    this.#nextMs += missed * this.#intervalMs;
    const wait = this.#nextMs - this.#now();
    if (wait > 0) await this.#wait(wait, signal);
    signal.throwIfAborted();
    this.#nextMs += this.#intervalMs;
    return { missed };
  }
}

/**
 * Yields ticks at whole intervals from now until the signal aborts.
 * @param intervalMs in ms
 * @returns how many ticks were left out before each one
 */
export async function* ticks(intervalMs: number, signal: AbortSignal): AsyncGenerator<number> {
  const ticker = new Ticker(intervalMs);
  try {
    for (;;) yield (await ticker.next(signal)).missed;
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
