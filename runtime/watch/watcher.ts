import type { AccountSample } from '../blame/sample.ts';
import { DomschedError } from '../error.ts';
import { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import type { HostListing, Hosts } from '../hypervisor/connect.ts';
import type { DomainListing } from '../hypervisor/types.ts';
import type { KnownKernel } from '../layout/registry.ts';
import { HeldRecords } from '../surgeon/held-records.ts';
import { type HeldRecord, Journal } from '../surgeon/journal.ts';
import type { RecordStore } from '../surgeon/records.ts';
import type { Tick, TickDomain } from '../tick/tick.ts';
import { TickClock } from '../tick/tick-clock.ts';
import { Accounts } from './accounts.ts';
import { openFor } from './attached-domain.ts';
import { theOne } from './choose.ts';
import { type Hold, holdOf, unknownHold } from './hold.ts';
import { type DomainLook, type LookOptions, processesOf } from './look.ts';
import { tickDomain } from './tick-domain.ts';
import { Tracker } from './tracker.ts';

/** A domain that is attached to. */
interface Machine {
  readonly guest: Guest;
  /** Records of the boot that we attached to; after a reboot we attach again. */
  readonly records: HeldRecords;
  readonly tracker: Tracker;
  /** Holds that were found in the guest, by key. */
  found: ReadonlyMap<string, Hold>;
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
  readonly #journal: RecordStore<HeldRecord>;
  readonly #machines = new Map<string, Machine>();
  readonly #accounts = new Accounts();
  readonly #clock = new TickClock();

  constructor(hosts: Hosts, known: readonly KnownKernel[], journal: RecordStore<HeldRecord> = new Journal()) {
    this.#hosts = hosts;
    this.#known = known;
    this.#journal = journal;
  }

  /**
   * Looks once at every domain, or at the one with this name or id. An unreadable domain yields its error.
   * @throws DomschedError `domain-not-found`, `domain-ambiguous`; `host-unreachable` if there is no host to ask
   */
  async look(wanted?: string, options: LookOptions = {}): Promise<DomainLook[]> {
    const listings = await this.#list();
    return this.#lookAt(wanted === undefined ? listings : [theOne(listings, wanted)], options);
  }

  /**
   * Looks once at every domain and reports like a tick of the daemon: what ran since the last look, and who is held.
   * @param missed looks left out since the last one
   * @throws DomschedError `host-unreachable` if there is no host to ask
   */
  async tick(missed = 0): Promise<Tick> {
    const { nowMs } = this.#clock.begin();
    const listings = await this.#list();
    const looks = await this.#lookAt(listings, {});
    const domains = looks.map((look, i) => describe(listings[i]!.listing, look, nowMs));
    return this.#clock.end({ missed, domains, actions: [] });
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
    for (const { guest } of this.#machines.values()) guest.detach();
    this.#machines.clear();
  }

  async #list(): Promise<HostListing[]> {
    const listings = await this.#hosts.list();
    const present = new Set(listings.map(keyOf));
    const gone = [...this.#machines.keys()].filter((key) => !present.has(key));
    await Promise.all(gone.map((key) => this.#drop(key)));
    return listings;
  }

  async #drop(key: string): Promise<void> {
    const guest = this.#machines.get(key)?.guest;
    this.#machines.delete(key);
    guest?.detach();
    await guest?.domain.close().catch(() => undefined);
  }

  async #lookAt(listings: readonly HostListing[], options: LookOptions): Promise<DomainLook[]> {
    const held = await this.#journal.list();
    return Promise.all(listings.map((found) => this.#look(found, options, held)));
  }

  async #look(found: HostListing, options: LookOptions, held: readonly HeldRecord[]): Promise<DomainLook> {
    const { identity } = found.listing;
    try {
      const processes = await this.#read(found, options);
      const machine = this.#machines.get(keyOf(found))!;
      const { guest, records, tracker } = machine;
      const nowMs = performance.now();
      tracker.holds.clear();
      for (const process of processes) {
        const record = records.find(held, process);
        if (record !== undefined) tracker.holds.set(tracker.keyOf(process), holdOf(record, nowMs));
      }
      await findHeld(machine, processes, nowMs);
      return { identity, guest, tracker, processes };
    } catch (error) {
      if (error instanceof DomschedError) return { identity, error };
      throw error;
    }
  }

  async #read({ host, listing }: HostListing, options: LookOptions) {
    if ('error' in listing) throw listing.error;
    const key = keyOf({ host, listing });
    const before = this.#machines.get(key);
    if (before !== undefined) {
      try {
        return await processesOf(before.guest, options);
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        await this.#drop(key);
        if (!REPLACED.has(error.code)) throw error;
      }
    }
    const { id, name } = listing.identity;
    return openFor(host, id, async (domain) => {
      const guest = await Guest.attach(domain, this.#known);
      try {
        const processes = await processesOf(guest, options);
        const records = HeldRecords.of(guest, processes);
        const tracker = new Tracker({ domain: id, domainName: name, boot: records.boot });
        this.#machines.set(key, { guest, records, tracker, found: new Map() });
        return processes;
      } catch (error) {
        guest.detach();
        throw error;
      }
    });
  }
}

/** Adds the holds of which no record tells: after a migration or a restored snapshot the guest alone knows of them. */
async function findHeld(machine: Machine, processes: readonly Process[], nowMs: number): Promise<void> {
  const { records, tracker } = machine;
  const unknown = processes.filter(
    (process) => process.suspects !== undefined && !tracker.holds.has(tracker.keyOf(process)),
  );
  if (unknown.length === 0 && machine.found.size === 0) return;
  const found = new Map<string, Hold>();
  for (const process of await records.heldIn(unknown)) {
    const key = tracker.keyOf(process);
    found.set(key, machine.found.get(key) ?? unknownHold(new Date(), nowMs));
  }
  for (const [key, hold] of found) tracker.holds.set(key, hold);
  machine.found = found;
}

function describe(listing: DomainListing, look: DomainLook, nowMs: number): TickDomain {
  const { id, name, hypervisor } = listing.identity;
  const facts = { id, name, hypervisor, vcpus: ('vcpus' in listing ? listing.vcpus : null) ?? 0 };
  if (!('error' in look)) look.tracker.update(look.processes, nowMs);
  return tickDomain(facts, look);
}

function keyOf({ host, listing }: HostListing): string {
  return `${host.connection} ${listing.identity.id}`;
}
