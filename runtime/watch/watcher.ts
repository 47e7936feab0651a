import type { AccountSample } from '../blame/sample.ts';
import { DomschedError } from '../error.ts';
import { Guest, type TakeOptions } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import { printable } from '../guest/text.ts';
import type { Hosts } from '../hypervisor/connect.ts';
import type { DomainIdentity, DomainListing, Host } from '../hypervisor/types.ts';
import type { KnownKernel } from '../layout/registry.ts';
import { HeldRecords } from '../surgeon/held-records.ts';
import { type HeldRecord, Journal } from '../surgeon/journal.ts';
import type { Tick, TickDomain } from '../tick/tick.ts';
import { Accounts } from './accounts.ts';
import { choose } from './choose.ts';
import { holdOf } from './hold.ts';
import { tickDomain } from './tick-domain.ts';
import { Tracker } from './tracker.ts';

/** A domain that is attached to. */
interface Machine {
  readonly guest: Guest;
  /** Records of the boot that we attached to; after a reboot we attach again. */
  readonly records: HeldRecords;
  readonly tracker: Tracker;
}

/** The result of one look at a domain. */
export type MachineLook = { readonly identity: DomainIdentity; readonly vcpus: number } & (
  | {
      readonly guest: Guest;
      readonly tracker: Tracker;
      readonly processes: readonly Process[];
      /** Record of a process's hold, if it is held. */
      readonly held: (process: Process) => HeldRecord | undefined;
    }
  | { readonly error: DomschedError }
);

interface HostListing {
  readonly host: Host;
  readonly listing: DomainListing;
}

/** With these errors another kernel or machine runs in the domain: attach again. */
const REPLACED: ReadonlySet<string> = new Set(['kernel-unidentified', 'domain-gone']);

/**
 * Looks at all guests of some hosts without a daemon and changes nothing. Stays attached between looks. The journal
 * tells who is held.
 */
export class Watcher {
  readonly #hosts: Hosts;
  readonly #known: readonly KnownKernel[];
  readonly #journal: Journal;
  readonly #machines = new Map<string, Machine>();
  readonly #accounts = new Accounts();
  readonly #startMs = performance.now();
  #lastMs: number | undefined;
  #ticks = 0;

  constructor(hosts: Hosts, known: readonly KnownKernel[], journal = new Journal()) {
    this.#hosts = hosts;
    this.#known = known;
    this.#journal = journal;
  }

  /**
   * Looks once at every domain, or at the one with this name or id. An unreadable domain yields its error.
   * @throws DomschedError `domain-not-found`, `domain-ambiguous`; `host-unreachable` if there is no host to ask
   */
  async look(wanted?: string, options: Omit<TakeOptions, 'withoutQueues'> = {}): Promise<MachineLook[]> {
    const listings = await this.#hosts.list();
    if (wanted === undefined) this.#keep(new Set(listings.map(keyOf)));
    const chosen = wanted === undefined ? listings : [theOne(listings, wanted)];
    const held = await this.#journal.list();
    return Promise.all(chosen.map((found) => this.#look(found, { ...options, withoutQueues: true }, held)));
  }

  /**
   * Looks once at every domain and reports like a tick of the daemon: what ran since the last look, and who is held.
   * @param missed looks left out since the last one
   * @throws DomschedError `host-unreachable` if there is no host to ask
   */
  async tick(missed = 0): Promise<Tick> {
    const nowMs = performance.now();
    const domains = (await this.look()).map((look) => describe(look, nowMs));
    const elapsedMs = this.#lastMs === undefined ? 0 : nowMs - this.#lastMs;
    this.#lastMs = nowMs;
    return {
      tick: ++this.#ticks,
      time: new Date().toISOString(),
      ms: nowMs - this.#startMs,
      elapsedMs,
      tookMs: performance.now() - nowMs,
      missed,
      domains,
      actions: [],
    };
  }

  /**
   * Reads the accounts of the host and of all guests once.
   * @throws DomschedError `host-unreachable` if there is no host to ask
   */
  async accounts(): Promise<AccountSample> {
    return this.#accounts.sample(await this.look(undefined, { threads: true }));
  }

  /** Detaches from all guests. The hosts stay open. */
  detach(): void {
    this.#keep(new Set());
  }

  #keep(present: ReadonlySet<string>): void {
    for (const [key, { guest }] of this.#machines) {
      if (present.has(key)) continue;
      guest.detach();
      this.#machines.delete(key);
    }
  }

  async #look(found: HostListing, take: TakeOptions, held: readonly HeldRecord[]): Promise<MachineLook> {
    const { listing } = found;
    const facts = { identity: listing.identity, vcpus: 'vcpus' in listing ? listing.vcpus : 0 };
    try {
      if ('error' in listing) throw listing.error;
      const processes = await this.#take(found, take);
      const { guest, records, tracker } = this.#machines.get(keyOf(found))!;
      return { ...facts, guest, tracker, processes, held: (process) => records.find(held, process) };
    } catch (error) {
      if (error instanceof DomschedError) return { ...facts, error };
      throw error;
    }
  }

  async #take(found: HostListing, take: TakeOptions): Promise<readonly Process[]> {
    const key = keyOf(found);
    const { host, listing } = found;
    const { id, name } = listing.identity;
    const before = this.#machines.get(key);
    if (before !== undefined) {
      try {
        return (await before.guest.take(take)).processes;
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        before.guest.detach();
        this.#machines.delete(key);
        if (!REPLACED.has(error.code)) throw error;
      }
    }
    const guest = await Guest.attach(await host.open(id), this.#known);
    try {
      const { processes } = await guest.take(take);
      const records = HeldRecords.of(guest, processes);
      const tracker = new Tracker({ domain: id, domainName: name, boot: records.boot });
      this.#machines.set(key, { guest, records, tracker });
      return processes;
    } catch (error) {
      guest.detach();
      throw error;
    }
  }
}

function describe(look: MachineLook, nowMs: number): TickDomain {
  const { id, name, hypervisor } = look.identity;
  const facts = { id, name, hypervisor, vcpus: look.vcpus };
  if ('error' in look) return tickDomain(facts, { error: look.error });
  const { guest, tracker, processes, held } = look;
  tracker.holds.clear();
  for (const process of processes) {
    const record = held(process);
    if (record !== undefined) tracker.holds.set(tracker.keyOf(process), holdOf(record, nowMs));
  }
  tracker.update(processes, nowMs);
  return tickDomain(facts, { guest, tracker });
}

function keyOf({ host, listing }: HostListing): string {
  return `${host.connection} ${listing.identity.id}`;
}

/** @throws DomschedError `domain-not-found`, `domain-ambiguous`; the error of a domain that hides even its name */
function theOne(listings: readonly HostListing[], wanted: string): HostListing {
  const found = choose(listings, wanted, ({ listing }) => listing.identity);
  if (found !== undefined) return found;
  // A domain with an unreadable name may be the wanted one.
  for (const { listing } of listings) if ('error' in listing) throw listing.error;
  throw new DomschedError(
    'domain-not-found',
    `there is no domain ${printable(wanted)}; domsched domains lists those that there are, --connect says where to look`,
    { domain: wanted },
  );
}
