import type { AccountSample, DomainTimes, GuestThreadTimes, HostThreadTimes, VcpuTimes } from './sample.ts';

/** A guest's thread in the time between two samples, in whole ns. */
export interface ThreadDelta {
  readonly thread: GuestThreadTimes;
  readonly ranNs: number;
  readonly waitedNs: number;
}

/** A vCPU in the time between two samples. */
export interface VcpuDelta {
  readonly vcpu: VcpuTimes;
  /** Host CPUs that it was seen on, at most two; none if the hypervisor does not tell. */
  readonly hostCpus: readonly number[];
  readonly ranNs: number;
  readonly waitedNs: number;
}

export interface DomainDelta {
  readonly domain: DomainTimes;
  readonly vcpus: readonly VcpuDelta[];
  /** None if one of the two samples could not read the guest. */
  readonly threads: readonly ThreadDelta[];
  /** Its kernel accounts waits. Otherwise they are estimated from who was ready at the samples. */
  readonly accountsWaits: boolean;
  readonly cappedNs: number;
}

export interface HostThreadDelta {
  readonly thread: HostThreadTimes;
  readonly hostCpus: readonly number[];
  readonly ranNs: number;
}

/** The time between two samples. */
export interface SampleDelta {
  readonly elapsedNs: number;
  readonly threads: readonly HostThreadDelta[];
  readonly domains: readonly DomainDelta[];
}

/** More than passes between two samples, and little enough for sums to stay exact. */
const MOST_NS = 3.6e12;

/**
 * What happened between two samples. Counters that went back count as if they stood still. A thread that is new has used
 * all its time since the first sample.
 */
export function deltaOf(before: AccountSample, after: AccountSample): SampleDelta {
  const elapsedNs = whole((after.ms - before.ms) * 1e6);
  const domains = new Map(before.domains.map((domain) => [domain.id, domain]));
  const threads = new Map(before.threads.map((thread) => [thread.tid, thread]));
  return {
    elapsedNs,
    threads: after.threads.map((thread) => {
      const seen = threads.get(thread.tid);
      // Another process may have the number by now.
      const earlier = seen?.pid === thread.pid ? seen : undefined;
      return { thread, hostCpus: both(earlier?.cpu, thread.cpu), ranNs: since(earlier?.ranNs, thread.ranNs) };
    }),
    domains: after.domains.map((domain) => domainDelta(domains.get(domain.id), domain, elapsedNs)),
  };
}

function domainDelta(before: DomainTimes | undefined, domain: DomainTimes, elapsedNs: number): DomainDelta {
  const vcpus = new Map(before?.vcpus.map((vcpu) => [vcpuKey(vcpu), vcpu]));
  const threads = new Map(before?.threads.map((thread) => [thread.key, thread]));
  // The first look at a guest cannot tell what ran.
  const isRead = before !== undefined && before.error === undefined && domain.error === undefined;
  const accountsWaits = domain.threads.some(({ waitedNs }) => waitedNs !== undefined);
  const read = isRead ? domain.threads : [];
  return {
    domain,
    accountsWaits,
    cappedNs: since(before?.cappedNs ?? domain.cappedNs, domain.cappedNs ?? 0),
    vcpus: domain.vcpus.map((vcpu) => {
      const earlier = vcpus.get(vcpuKey(vcpu)) ?? (before === undefined ? vcpu : undefined);
      return {
        vcpu,
        hostCpus: both(earlier?.cpu, vcpu.cpu),
        ranNs: since(earlier?.ranNs, vcpu.ranNs),
        waitedNs: since(earlier?.waitedNs, vcpu.waitedNs),
      };
    }),
    threads: read.map((thread) => {
      const earlier = threads.get(thread.key);
      const ranNs = since(earlier?.ranNs, thread.ranNs);
      const waitedNs = accountsWaits
        ? since(earlier?.waitedNs, thread.waitedNs ?? 0)
        : readyNs(earlier, thread, ranNs, elapsedNs);
      return { thread, ranNs, waitedNs };
    }),
  };
}

/** Half of the time counts for each sample that met the thread ready. It cannot have waited while it ran. */
function readyNs(
  before: GuestThreadTimes | undefined,
  after: GuestThreadTimes,
  ranNs: number,
  elapsedNs: number,
): number {
  const part = (Number(before?.ready ?? false) + Number(after.ready)) / 2;
  return whole(Math.min(part * elapsedNs, elapsedNs - ranNs));
}

function vcpuKey({ vcpu, tid }: VcpuTimes): string {
  return `${vcpu} ${tid ?? ''}`;
}

function both(before: number | undefined, after: number | undefined): number[] {
  return [...new Set([before, after])].filter((cpu) => cpu !== undefined);
}

function since(before: number | undefined, after: number): number {
  return whole(after - (before ?? 0));
}

function whole(value: number): number {
  return Number.isFinite(value) && value > 0 ? Math.round(Math.min(value, MOST_NS)) : 0;
}
