/** Decides when to retry after failures; each wait is twice the last. Times are in ms. */
export class Backoff {
  readonly #firstMs: number;
  readonly #mostMs: number;
  readonly #failures = new Map<string, { untilMs: number; waitMs: number }>();

  constructor(firstMs = 100, mostMs = 10_000) {
    this.#firstMs = firstMs;
    this.#mostMs = mostMs;
  }

  allows(what: string, nowMs: number): boolean {
    return nowMs >= (this.#failures.get(what)?.untilMs ?? -Infinity);
  }

  /** @param leastMs to wait at least, for what costs much to try */
  fail(what: string, nowMs: number, leastMs = 0): void {
    const before = this.#failures.get(what)?.waitMs;
    const waitMs = before === undefined ? this.#firstMs : Math.min(2 * before, this.#mostMs);
    this.#failures.set(what, { untilMs: nowMs + Math.max(waitMs, leastMs), waitMs });
  }

  succeed(what: string): void {
    this.#failures.delete(what);
  }

  /** Forgets every key with this ending: its subject no longer exists. */
  forget(end: string): void {
    for (const what of this.#failures.keys()) if (what.endsWith(end)) this.#failures.delete(what);
  }
}
