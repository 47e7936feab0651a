import { HALF_WRITTEN, type Problem, problemsOf } from '../tick/problems.ts';
import type { Tick } from '../tick/tick.ts';

/** A tick younger than this is never stale, in ms: a busy host may delay the daemon. */
const SHORTEST_STALE_MS = 10_000;
/** A tick is stale after this many intervals. */
const STALE_INTERVALS = 5;

/** Errors of a guest that exists but is not what we took it for. */
const CONTRADICTIONS: ReadonlySet<string> = new Set(['guest-inconsistent']);

export interface Health {
  /**
   * `inconsistent` means that data of a guest contradicts itself; its kernel may have been replaced. `edit-torn` means
   * that an edit may have left a guest half written, and no policy edits it before it is reset. `journal-failed` means that nothing can be held or changed, because it cannot be written down.
   */
  readonly status: 'healthy' | 'stale' | 'starting' | 'inconsistent' | 'edit-torn' | 'journal-failed';
  /** Age of the last tick, in ms; null before the first. */
  readonly ageMs: number | null;
  readonly tick: number | null;
  readonly domains: number;
  /** Domains that could not be read at the last tick. Vanished domains do not count: guests come and go. */
  readonly unreadable: number;
  /** What an operator has to see to, with the reason and the next step. */
  readonly problems: readonly Problem[];
}

/** Whether the daemon still looks at its guests. */
export class HealthCheck {
  readonly #now: () => number;
  #last: { at: number; tick: Tick; intervalMs: number } | undefined;

  /** @param now monotonic, in ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  tick(tick: Tick): void {
    // The daemon looks less often while nothing changes; the return to frequent looks must not seem a delay.
    const intervalMs = Math.max(tick.elapsedMs, (this.#last?.intervalMs ?? 0) * 0.9);
    this.#last = { at: this.#now(), tick, intervalMs };
  }

  get(): Health {
    if (this.#last === undefined) {
      return { status: 'starting', ageMs: null, tick: null, domains: 0, unreadable: 0, problems: [] };
    }
    const { at, tick, intervalMs } = this.#last;
    const ageMs = Math.round(this.#now() - at);
    const isStale = ageMs > Math.max(SHORTEST_STALE_MS, STALE_INTERVALS * intervalMs);
    const isInconsistent = tick.domains.some(
      ({ error }) => error !== undefined && CONTRADICTIONS.has(error.code),
    );
    const problems = problemsOf(tick);
    const isTorn = problems.some(({ code }) => HALF_WRITTEN.has(code));
    return {
      status: isStale
        ? 'stale'
        : isInconsistent
          ? 'inconsistent'
          : isTorn
            ? 'edit-torn'
            : tick.journal !== undefined
              ? 'journal-failed'
              : 'healthy',
      ageMs,
      tick: tick.tick,
      domains: tick.domains.length,
      unreadable: tick.domains.filter(({ error }) => error !== undefined).length,
      problems,
    };
  }
}
