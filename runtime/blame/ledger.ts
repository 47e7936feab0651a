import { type Charge, type Culprit, culpritKey, type WaitPlace } from './charge.ts';
import { type DomainDelta, deltaOf, type SampleDelta, type ThreadDelta } from './delta.ts';
import { HostCpus } from './host-cpus.ts';
import { type CpuLane, lanesOf } from './lanes.ts';
import type { AccountSample, DomainTimes } from './sample.ts';
import { split } from './split.ts';

/** How long a guest's clock may have stood still, so that a wait is told late. */
const LATE_NS = 250e6;
/** CPU time that a guest may claim beyond what its vCPUs were given, as a part of it and in ns, before we say so. */
const CLAIM_PART = 1.1;
const CLAIM_NS = 100e6;

/** What is known of a domain's word after all samples so far. */
export interface DomainAudit {
  /** CPU time that its processes claim, and the time for which its vCPUs ran or waited on the host, ns. */
  readonly claimedNs: number;
  readonly givenNs: number;
  readonly claimsTooMuch: boolean;
  readonly accountsWaits: boolean;
  /** Its processes were read at both samples of at least one interval. */
  readonly isRead: boolean;
  /** How the host knows how long its vCPUs waited: Xen does not count it. */
  readonly hostWaits: 'measured' | 'sampled' | 'unknown';
}

interface DomainSums {
  readonly claimedNs: number;
  readonly givenNs: number;
  readonly isRead: boolean;
  /** The last one that could be read, if there was one. */
  readonly delta: DomainDelta;
}

/** Time that a thread was ready and did not run. */
interface ThreadWait {
  readonly thread: ThreadDelta['thread'];
  /** In its guest's run queue while the vCPU ran. */
  readonly insideNs: number;
  /** While the vCPU waited on the host. */
  readonly hostNs: number;
}

/** What happened from one sample to the next. All times are whole ns. */
export interface Interval {
  readonly elapsedNs: number;
  readonly charges: readonly Charge[];
  /** CPU time of the processes that matter, by what their guest claims and the host gave. */
  readonly runs: readonly Pick<Charge, 'domain' | 'pid' | 'comm' | 'ns'>[];
}

/** Takes samples, and says who waited for whom from each to the next. */
export class Ledger {
  #before: AccountSample | undefined;
  readonly #audits = new Map<string, DomainSums>();
  /** For each thread of a guest: how long it may have waited beyond what was counted, see {@link #bounded}. */
  #allowances = new Map<string, number>();

  /**
   * Adds a sample.
   * @param wants domains whose waits matter; all when left out
   * @returns undefined at the first sample
   */
  add(sample: AccountSample, wants: (domain: DomainTimes) => boolean = () => true): Interval | undefined {
    const before = this.#before;
    this.#before = sample;
    if (before === undefined || !(sample.ms > before.ms)) return undefined;
    const delta = deltaOf(before, sample);
    for (const domain of delta.domains) this.#audit(domain);
    const lanes = new Map(delta.domains.map((each) => [each.domain.id, lanesOf(each)]));
    const host = new HostCpus(delta, lanes);
    const charges = new Charges();
    const allowances = new Map<string, number>();
    const runs: Interval['runs'][number][] = [];
    for (const domain of delta.domains) {
      if (!wants(domain.domain)) continue;
      for (const lane of lanes.get(domain.domain.id)!) {
        const waits = this.#waits(domain, lane, delta, allowances);
        runs.push(...runsOf(domain, lane));
        chargeInside(domain, lane, waits, charges);
        chargeHost(domain, lane, waits, host, charges);
      }
    }
    this.#allowances = allowances;
    return { elapsedNs: delta.elapsedNs, charges: charges.list(), runs };
  }

  /** By the domain's id. */
  audit(id: string): DomainAudit | undefined {
    const found = this.#audits.get(id);
    if (found === undefined) return undefined;
    const { claimedNs, givenNs, delta, isRead } = found;
    const isKnown = delta.vcpus.length > 0;
    return {
      claimedNs,
      givenNs,
      claimsTooMuch: isKnown && claimedNs > givenNs * CLAIM_PART + CLAIM_NS,
      accountsWaits: delta.accountsWaits,
      isRead,
      hostWaits: hostWaits(delta),
    };
  }

  #audit(delta: DomainDelta): void {
    const { id, cpus } = delta.domain;
    const before = this.#audits.get(id) ?? { claimedNs: 0, givenNs: 0, isRead: false, delta };
    if (delta.threads.length === 0) {
      this.#audits.set(id, before);
      return;
    }
    const given = delta.vcpus.map(({ ranNs, waitedNs }) => ranNs + waitedNs);
    // Where one thread of the host runs several CPUs in turn, each of them takes all of its time for its own.
    const turns = delta.vcpus.length === 0 ? 1 : Math.max(1, cpus.length / delta.vcpus.length);
    const claimed = delta.threads.reduce((sum, { ranNs }) => sum + ranNs, 0);
    const sum = given.reduce((a, b) => a + b, 0) * turns;
    this.#audits.set(id, {
      claimedNs: before.claimedNs + claimed,
      givenNs: before.givenNs + sum,
      isRead: true,
      delta,
    });
  }

  /**
   * How long each thread of a lane was ready and did not run. While one waits in the guest's queue its vCPU runs or waits
   * itself, in the proportion in which it did so altogether. The vCPU's own waits are those of the threads that it ran,
   * by their CPU time: one of them was on it, or about to be.
   */
  #waits(
    { domain }: DomainDelta,
    { threads, ranNs, waitedNs }: CpuLane,
    { elapsedNs }: SampleDelta,
    allowances: Map<string, number>,
  ): ThreadWait[] {
    const withheld = split(
      waitedNs,
      threads.map((each) => each.ranNs),
    );
    return threads.map(({ thread, waitedNs: told }, i) => {
      const key = `${domain.id}\0${thread.key}`;
      const queuedNs = this.#bounded(key, told, elapsedNs, allowances);
      const [insideNs = 0, queuedOnHost = 0] =
        ranNs + waitedNs > 0 ? split(queuedNs, [ranNs, waitedNs]) : [queuedNs, 0];
      return { thread, insideNs, hostNs: queuedOnHost + withheld[i]! };
    });
  }

  /** Nobody waits longer than time passes, whatever the guest says. A wait may be told late, all at once. */
  #bounded(key: string, told: number, elapsedNs: number, allowances: Map<string, number>): number {
    const allowed = (this.#allowances.get(key) ?? LATE_NS) + elapsedNs;
    const queuedNs = Math.min(told, Math.floor(allowed));
    allowances.set(key, allowed - queuedNs);
    return queuedNs;
  }
}

function runsOf({ domain }: DomainDelta, { threads, ranNs, claimedNs }: CpuLane): Interval['runs'] {
  const given = split(
    Math.min(ranNs, claimedNs),
    threads.map((each) => each.ranNs),
  );
  return threads.map(({ thread: { pid, comm } }, i) => ({ domain: domain.name, pid, comm, ns: given[i]! }));
}

function hostWaits({ vcpus }: DomainDelta): DomainAudit['hostWaits'] {
  if (vcpus.length === 0) return 'unknown';
  return vcpus.every(({ vcpu }) => vcpu.tid !== undefined) ? 'measured' : 'sampled';
}

/** Sums up charges that differ in their time only. */
class Charges {
  readonly #sums = new Map<string, { charge: Omit<Charge, 'ns'>; ns: number }>();

  add(domain: DomainTimes, wait: ThreadWait, place: WaitPlace, culprit: Culprit, ns: number): void {
    if (ns === 0) return;
    const { pid, comm } = wait.thread;
    const key = `${domain.id}\0${pid}\0${comm}\0${place}\0${culpritKey(culprit)}`;
    const sum = this.#sums.get(key);
    if (sum !== undefined) sum.ns += ns;
    else this.#sums.set(key, { charge: { domain: domain.name, pid, comm, culprit, place }, ns });
  }

  list(): Charge[] {
    return Array.from(this.#sums.values(), ({ charge, ns }) => ({ ...charge, ns }));
  }
}

/** Waits in the guest's own queues: for the other threads on the same CPU, by their CPU time. */
function chargeInside(
  { domain, threads }: DomainDelta,
  lane: CpuLane,
  waits: readonly ThreadWait[],
  charges: Charges,
): void {
  const here = groups(lane.threads);
  const anywhere = groups(threads);
  for (const [i, wait] of waits.entries()) {
    if (wait.insideNs === 0) continue;
    const own = lane.threads[i]!;
    const [names, ns] = others(here, own, wait.insideNs) ?? others(anywhere, own, wait.insideNs) ?? [[], []];
    if (names.length === 0)
      charges.add(domain, wait, 'guest', { kind: 'guest', domain: domain.name }, wait.insideNs);
    for (const [at, comm] of names.entries())
      charges.add(domain, wait, 'guest', { kind: 'process', domain: domain.name, comm }, ns[at]!);
  }
}

/** CPU time by the processes' names. */
function groups(threads: readonly ThreadDelta[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { thread, ranNs } of threads) {
    if (ranNs > 0) sums.set(thread.comm, (sums.get(thread.comm) ?? 0) + ranNs);
  }
  return sums;
}

/** Splits a wait among everybody but the thread that waited; undefined if nobody else ran. */
function others(
  sums: ReadonlyMap<string, number>,
  { thread, ranNs }: ThreadDelta,
  waitedNs: number,
): [string[], number[]] | undefined {
  const names = [...sums.keys()];
  const weights = names.map((comm) => sums.get(comm)! - (comm === thread.comm ? ranNs : 0));
  if (!weights.some((weight) => weight > 0)) return undefined;
  return [names, split(waitedNs, weights)];
}

/** Waits together with the vCPU: for its cap, and for who ran on the host CPUs that the vCPU waited for. */
function chargeHost(
  domain: DomainDelta,
  lane: CpuLane,
  waits: readonly ThreadWait[],
  host: HostCpus,
  charges: Charges,
): void {
  if (!waits.some(({ hostNs }) => hostNs > 0)) return;
  const culprits = host.culpritsOf(domain, lane);
  const weights = culprits.map(({ weight }) => weight);
  for (const wait of waits) {
    const ns = split(wait.hostNs, weights);
    if (wait.hostNs > 0 && culprits.length === 0)
      charges.add(domain.domain, wait, 'host', { kind: 'unknown' }, wait.hostNs);
    for (const [i, { culprit }] of culprits.entries())
      charges.add(domain.domain, wait, 'host', culprit, ns[i]!);
  }
}
