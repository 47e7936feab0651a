import { setTimeout as sleep } from 'node:timers/promises';

/** When a tick is due: at whole intervals from the start, however long the ticks take. */
export interface Due {
  /** Ticks that were left out because the one before was not over. */
  readonly missed: number;
}

/**
 * Calls for a tick at whole multiples of an interval since the start: what one tick takes, or a timer is late by, is
 * not added to the next. A tick that comes when the next is due already is not made up for, but counted.
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

  /** Another interval, from the tick that was last due on. */
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
 * Ticks until the signal, at whole intervals from now on.
 * @param intervalMs in ms
 * @returns how many ticks were left out before each
 */
export async function* ticks(intervalMs: number, signal: AbortSignal): AsyncGenerator<number> {
  const ticker = new Ticker(intervalMs);
  try {
    for (;;) yield (await ticker.next(signal)).missed;
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
