import { DomschedError } from '../error.ts';
import { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import { processKey } from '../guest/process-key.ts';
import type { ProcessState } from '../guest/state.ts';
import { printable } from '../guest/text.ts';
import type { Hosts } from '../hypervisor/connect.ts';
import type { DomainListing, Host } from '../hypervisor/types.ts';
import type { KnownKernel } from '../layout/registry.ts';
import { withoutAddresses } from '../memory/address.ts';
import { HeldRecords } from '../surgeon/held-records.ts';
import { type HeldRecord, Journal } from '../surgeon/journal.ts';
import type { Tick, TickDomain, TickProcess } from '../tick/tick.ts';

/** How a policy and its reader call what a kernel has more words for. */
const STATES: Readonly<Record<ProcessState, TickProcess['state']>> = {
  running: 'running',
  ready: 'ready',
  sleeping: 'sleeping',
  'disk-sleep': 'sleeping',
  idle: 'sleeping',
  stopped: 'stopped',
  traced: 'stopped',
  parked: 'stopped',
  held: 'held',
  zombie: 'ended',
  dead: 'ended',
};

/** A process at the last look. */
interface Seen {
  readonly key: string;
  readonly runtimeNs: number;
}

interface Watched {
  readonly guest: Guest;
  /** Of the boot that was attached to: after a reboot it is attached to anew. */
  readonly records: HeldRecords;
  /** By identity. */
  ran: Map<string, Seen>;
}

/**
 * Looks at all guests of some hosts, without a daemon and without a pause, and changes nothing: the reports that the
 * daemon makes, but for what only it knows. What `domsched hold` stopped is known from the journal.
 */
export class Sampler {
  readonly #hosts: Hosts;
  readonly #known: readonly KnownKernel[];
  readonly #journal: Journal;
  readonly #watched = new Map<string, Watched>();
  readonly #start = performance.now();
  #last: number | undefined;
  #tick = 0;

  constructor(hosts: Hosts, known: readonly KnownKernel[], journal = new Journal()) {
    this.#hosts = hosts;
    this.#known = known;
    this.#journal = journal;
  }

  /**
   * One look.
   * @param missed looks that were left out since the last one
   * @throws DomschedError `host-unreachable` when there is no host to ask
   */
  async sample(missed = 0): Promise<Tick> {
    const now = performance.now();
    const held = await this.#journal.list();
    const listings = await this.#hosts.list();
    const domains = await Promise.all(listings.map((found) => this.#domain(found, held)));
    this.#forget(new Set(listings.map(({ host, listing }) => watchKey(host, listing.identity.id))));
    const elapsedMs = this.#last === undefined ? 0 : now - this.#last;
    this.#last = now;
    return {
      tick: ++this.#tick,
      time: new Date().toISOString(),
      ms: now - this.#start,
      elapsedMs,
      tookMs: performance.now() - now,
      missed,
      domains,
      actions: [],
    };
  }

  /** Lets go of all guests. The hosts stay open. */
  detach(): void {
    this.#forget(new Set());
  }

  #forget(present: ReadonlySet<string>): void {
    for (const [key, { guest }] of this.#watched) {
      if (present.has(key)) continue;
      guest.detach();
      this.#watched.delete(key);
    }
  }

  async #domain(
    { host, listing }: { host: Host; listing: DomainListing },
    held: readonly HeldRecord[],
  ): Promise<TickDomain> {
    const { id, name, hypervisor } = listing.identity;
    const vcpus = 'vcpus' in listing ? listing.vcpus : 0;
    const facts = { id, name: printable(name), hypervisor, vcpus };
    try {
      if ('error' in listing) throw listing.error;
      const key = watchKey(host, id);
      const processes = await this.#processes(key, host, id);
      const watched = this.#watched.get(key)!;
      // A machine with two sockets has two ids; whoever held the process may have come by the other.
      const mine = held.filter((record) => record.domain === id || record.name === name);
      const ran = new Map<string, Seen>();
      const reports = processes.map((process) => {
        const identity = identityOf(process);
        const before = watched.ran.get(identity);
        const key = before?.key ?? processKey(id, '', process);
        ran.set(identity, { key, runtimeNs: process.runtimeNs });
        return report(key, process, before?.runtimeNs, watched.records.find(mine, process));
      });
      watched.ran = ran;
      return { ...facts, kernel: printable(watched.guest.kernel.release), processes: reports };
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      return {
        ...facts,
        error: { code: error.code, message: withoutAddresses(printable(error.message)) },
        processes: [],
      };
    }
  }

  async #processes(key: string, host: Host, id: string): Promise<readonly Process[]> {
    const before = this.#watched.get(key);
    if (before !== undefined) {
      try {
        return (await before.guest.take({ withoutQueues: true })).processes;
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        before.guest.detach();
        this.#watched.delete(key);
        // The guest rebooted, or the domain was started anew: look again who it is.
        if (!['kernel-unidentified', 'domain-gone'].includes(error.code)) throw error;
      }
    }
    const guest = await Guest.attach(await host.open(id), this.#known);
    try {
      const { processes } = await guest.take({ withoutQueues: true });
      this.#watched.set(key, { guest, records: HeldRecords.of(guest, processes), ran: new Map() });
      return processes;
    } catch (error) {
      guest.detach();
      throw error;
    }
  }
}

function watchKey(host: Host, id: string): string {
  return `${host.connection} ${id}`;
}

/** Of the processes of one domain. */
function identityOf({ pid, address, startTimeNs }: Process): string {
  return `${pid} ${address.toString(16)} ${startTimeNs}`;
}

function report(
  key: string,
  process: Process,
  last: number | undefined,
  record: HeldRecord | undefined,
): TickProcess {
  const { pid, ppid, comm, nice, kernelThread, runtimeNs, cpu } = process;
  const ranNs = last === undefined ? 0 : Math.max(0, runtimeNs - last);
  const facts = { key, pid, ppid, comm, nice, kernelThread, cpuNs: runtimeNs, ranNs, cpu };
  if (record === undefined) return { ...facts, state: STATES[process.state] };
  const { policy = 'hold', reason = 'by command', since } = record;
  return { ...facts, state: 'held', held: { policy, reason: printable(reason), since } };
}
