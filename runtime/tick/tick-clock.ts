import type { Tick } from './tick.ts';

/** Numbers the ticks of one source and measures how long they take and how far apart they are. */
export class TickClock {
  readonly #now: () => number;
  /** When it was made, by the clock that it was given, in ms. */
  readonly startMs: number;
  #beginMs: number | undefined;
  #elapsedMs = 0;
  #count = 0;

  /** @param now monotonic, in ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.startMs = now();
  }

  /** Begins a tick. @returns the time now and the time since the previous tick began, in ms */
  begin(): { readonly nowMs: number; readonly elapsedMs: number } {
    const nowMs = this.#now();
    this.#elapsedMs = nowMs - (this.#beginMs ?? nowMs);
    this.#beginMs = nowMs;
    this.#count += 1;
    return { nowMs, elapsedMs: this.#elapsedMs };
  }

  /** Ends the tick. @returns all that it saw and did */
  end(seen: Omit<Tick, 'tick' | 'time' | 'ms' | 'elapsedMs' | 'tookMs'>): Tick {
    const beginMs = this.#beginMs ?? this.startMs;
    return {
      tick: this.#count,
      time: new Date().toISOString(),
      ms: beginMs - this.startMs,
      elapsedMs: this.#elapsedMs,
      tookMs: this.#now() - beginMs,
      ...seen,
    };
  }
}
