import type { AccountSample, DomainTimes, HostThreadTimes, VcpuTimes } from '../blame/sample.ts';
import { DomschedError } from '../error.ts';
import { threadAccounts } from '../guest/accounts.ts';
import type { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import { printableBytes } from '../guest/text.ts';
import { HostThreads } from '../hypervisor/host-threads.ts';
import type { VcpuTime } from '../hypervisor/types.ts';
import { machineThreads } from '../hypervisor/vmm/vcpu-threads.ts';
import type { DomainLook } from './look.ts';

/** A domain that was looked at: its guest with all threads, or why there are none. */
export type AccountedDomain = Pick<DomainLook, 'identity'> &
  (
    | { readonly guest: Guest; readonly processes: readonly Process[] }
    | { readonly error: { readonly code: string; readonly message: string } }
  );

/** Reads the host's accounts, and joins them to those of guests. */
export class Accounts {
  readonly #host = new HostThreads();

  /**
   * @param domains as looks of this moment found them
   * @param ms this moment, monotonic
   */
  sample(domains: readonly AccountedDomain[], ms = performance.now()): AccountSample {
    // First, as `ms` is their moment: on a slow host all the rest takes a while, which would be added to somebody's waits.
    const clocks = domains.map((domain) =>
      'guest' in domain ? (domain.guest.domain.hostClock?.read() ?? []) : undefined,
    );
    const guests = domains.map(guestTimes);
    const machines = domains.flatMap(({ identity }) => identity.pid ?? []);
    const placeOf = machineCpus(domains);
    const threads = this.#host.read(new Set(machines)).map(({ rawComm, ...times }) => ({
      ...times,
      cpu: placeOf(times.cpu),
      comm: printableBytes(rawComm),
    }));
    const byTid = new Map(threads.map((thread) => [thread.tid, thread]));
    return {
      ms,
      threads,
      domains: domains.map((domain, i) => ({
        ...guests[i]!,
        vcpus: clocks[i] === undefined ? threadTimes(domain, byTid) : placed(clocks[i], byTid),
      })),
    };
  }
}

/** Where the CPUs of this host's kernel are, by the word of the hypervisor that it runs on, if there is one. */
function machineCpus(domains: readonly AccountedDomain[]): (cpu: number) => number {
  const clock = domains
    .map((domain) => ('guest' in domain ? domain.guest.domain.hostClock : undefined))
    .find((one) => one?.machineCpu !== undefined);
  const known = new Map<number, number>();
  return (cpu) => {
    let place = known.get(cpu);
    if (place === undefined) {
      place = clock?.machineCpu?.(cpu) ?? cpu;
      known.set(cpu, place);
    }
    return place;
  };
}

type GuestTimes = Omit<DomainTimes, 'vcpus'>;

function guestTimes(domain: AccountedDomain): GuestTimes {
  const { id, name, pid } = domain.identity;
  const facts = { id, name, ...(pid !== undefined && { pid }) };
  const none = { ...facts, cpus: [], threads: [] };
  if ('error' in domain) return { ...none, error: domain.error };
  const { guest, processes } = domain;
  try {
    const accounts = threadAccounts(guest, processes);
    const cappedNs = guest.domain.scheduler?.cappedNs?.();
    return {
      ...facts,
      cpus: guest.cpus.map(({ cpu }) => cpu),
      ...(cappedNs !== undefined && { cappedNs }),
      threads: accounts.map(({ thread, comm, ranNs, waitedNs }) => ({
        // A later thread with the same number has another start time.
        key: `${thread.pid} ${thread.startTimeNs}`,
        pid: thread.tgid,
        comm,
        cpu: thread.cpu,
        ranNs,
        ...(waitedNs !== undefined && { waitedNs }),
        ready: thread.state === 'ready',
      })),
    };
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return { ...none, error: { code: error.code, message: error.message } };
  }
}

function placed(times: readonly VcpuTime[], threads: ReadonlyMap<number, HostThreadTimes>): VcpuTimes[] {
  return times.map((time, vcpu) => {
    const cpu = time.cpu ?? threads.get(time.tid ?? -1)?.cpu;
    return { ...time, vcpu, ...(cpu !== undefined && { cpu }) };
  });
}

/** vCPUs of a machine that could not be attached to. */
function threadTimes(
  { identity: { pid } }: AccountedDomain,
  threads: ReadonlyMap<number, HostThreadTimes>,
): VcpuTimes[] {
  const tids = pid === undefined ? [] : machineThreads(pid).vcpus;
  return tids.flatMap((tid, vcpu) => {
    const thread = threads.get(tid);
    if (thread === undefined) return [];
    const { ranNs, waitedNs, cpu } = thread;
    return [{ vcpu, tid, ranNs, waitedNs, cpu }];
  });
}
