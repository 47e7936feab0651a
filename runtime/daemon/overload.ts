import type { Logger } from 'pino';

/** Overload is logged at once, then once per this time, in ms. */
const AGAIN_MS = 60_000;

/** Logs that ticks are left out, without filling the log. Every tick has the exact number. */
export class Overload {
  readonly #log: Logger;
  #missed = 0;
  #saidMs = -Infinity;

  constructor(log: Logger) {
    this.#log = log;
  }

  add(missed: number, nowMs: number): void {
    this.#missed += missed;
    if (this.#missed === 0 || nowMs - this.#saidMs < AGAIN_MS) return;
    this.#log.warn({ missed: this.#missed }, 'ticks were left out: this host is too busy for the interval');
    this.#missed = 0;
    this.#saidMs = nowMs;
  }
}
