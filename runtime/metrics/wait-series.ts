import type { Counter } from '@prometheus-io/client';
import type { TickWait } from '../tick/tick.ts';

/** Everybody without a series of their own. */
const OTHERS = '(others)';
/** A pair whose waits have not grown for this long makes room for another one, in ms. */
const FORGOTTEN_MS = 600_000;

/** Who waited for whom. Guests make up names, so a pair gets a series when it is large and there is room. */
export class WaitSeries {
  readonly #counter: Counter<'victim' | 'culprit'>;
  readonly #most: number;
  /** When each pair last grew. */
  readonly #pairs = new Map<string, { victim: string; culprit: string; grewMs: number }>();

  /** @param most pairs with a series of their own at a time */
  constructor(counter: Counter<'victim' | 'culprit'>, most: number) {
    this.#counter = counter;
    this.#most = most;
  }

  add(waits: readonly TickWait[], nowMs: number): void {
    const sums = new Map<string, { victim: string; culprit: string; seconds: number }>();
    for (const { domain, comm, culprit, ns } of waits) {
      if (!(Number.isFinite(ns) && ns > 0)) continue;
      const labels = { victim: `${domain}/${comm}`, culprit: culpritLabel(culprit) };
      const key = JSON.stringify(labels);
      const sum = sums.get(key);
      if (sum === undefined) sums.set(key, { ...labels, seconds: ns / 1e9 });
      else sum.seconds += ns / 1e9;
    }
    const largestFirst = [...sums].sort(([, a], [, b]) => b.seconds - a.seconds);
    for (const [key, { victim, culprit, seconds }] of largestFirst) {
      const has = this.#pairs.has(key) || this.#makeRoom(nowMs);
      if (has) this.#pairs.set(key, { victim, culprit, grewMs: nowMs });
      this.#counter.inc(has ? { victim, culprit } : { victim: OTHERS, culprit: OTHERS }, seconds);
    }
  }

  #makeRoom(nowMs: number): boolean {
    if (this.#pairs.size < this.#most) return true;
    for (const [key, { victim, culprit, grewMs }] of this.#pairs) {
      if (nowMs - grewMs < FORGOTTEN_MS) continue;
      this.#pairs.delete(key);
      this.#counter.remove({ victim, culprit });
      return true;
    }
    return false;
  }
}

/** `web/gzip`, `host/make`, or a domain with what of it is meant, such as `web (kernel)`. */
function culpritLabel({ kind, domain = '', comm = '' }: TickWait['culprit']): string {
  switch (kind) {
    case 'process':
      return `${domain}/${comm}`;
    case 'host':
      return `host/${comm}`;
    case 'guest':
      return `${domain} (kernel)`;
    case 'machine':
    case 'cap':
      return `${domain} (${kind})`;
    default:
      return '(unknown)';
  }
}
