import { Ledger } from '../blame/ledger.ts';
import { printable } from '../guest/text.ts';
import type { TickWait } from '../tick/tick.ts';
import type { AccountedDomain, Accounts } from '../watch/accounts.ts';
import type { WatchedDomain } from '../watch/watched-domain.ts';

/** How often waits are told, in ms. The host's threads are read for it, which costs more than a look at a guest. */
export const EVERY_MS = 10_000;

/** The largest are told, and none that is shorter than this, in ns: guests choose how many there are. */
const MOST_WAITS = 1_000;
const LEAST_NS = 1e6;

/** Who waited for whom, from what the daemon has read of its guests anyway. */
export class Waits {
  readonly #accounts: Accounts;
  #ledger = new Ledger();
  #toldMs = -Infinity;

  constructor(accounts: Accounts) {
    this.#accounts = accounts;
  }

  /** @returns undefined if it is not time yet */
  look(domains: readonly WatchedDomain[], nowMs: number): readonly TickWait[] | undefined {
    if (nowMs - this.#toldMs < EVERY_MS) return undefined;
    this.#toldMs = nowMs;
    const interval = this.#ledger.add(this.#accounts.sample(domains.flatMap(accounted), nowMs));
    const sums = new Map<string, TickWait & { ns: number }>();
    for (const { domain, comm, culprit, place, ns } of interval?.charges ?? []) {
      const key = JSON.stringify([domain, comm, culprit, place]);
      const sum = sums.get(key);
      if (sum !== undefined) sum.ns += ns;
      else {
        const name = culprit.domain === undefined ? {} : { domain: printable(culprit.domain) };
        sums.set(key, { domain: printable(domain), comm, culprit: { ...culprit, ...name }, place, ns });
      }
    }
    return [...sums.values()]
      .filter(({ ns }) => ns >= LEAST_NS)
      .sort((a, b) => b.ns - a.ns)
      .slice(0, MOST_WAITS);
  }

  /** Nobody listens: what happens meanwhile is not told later. */
  rest(): void {
    if (this.#toldMs === -Infinity) return;
    this.#toldMs = -Infinity;
    this.#ledger = new Ledger();
  }
}

function accounted(watched: WatchedDomain): AccountedDomain[] {
  const { identity, guest, tracker } = watched;
  if (identity === undefined) return [];
  if (guest !== undefined && tracker !== undefined)
    return [{ identity, guest, processes: tracker.processes() }];
  return [{ identity, error: watched.describe().error! }];
}
