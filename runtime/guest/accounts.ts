import { optionalField } from '../layout/members.ts';
import { readMember } from './fields.ts';
import type { Guest } from './guest.ts';
import type { Process } from './process.ts';

/** CPU time and waits of one thread. */
export interface ThreadAccount {
  readonly thread: Process;
  /** Name of its process. */
  readonly comm: string;
  /** Time on a CPU, ns. The kernel may count time in which the hypervisor let its vCPU wait. */
  readonly ranNs: number;
  /** Time in a run queue up to now, ns; absent if the kernel does not account it. */
  readonly waitedNs?: number;
}

/**
 * The accounts of all threads of a guest.
 * @param threads as a look of this moment found them
 * @throws DomschedError `translation-fault`, `domain-gone`, `host-unreachable`
 */
export function threadAccounts(guest: Guest, threads: readonly Process[]): ThreadAccount[] {
  const waits = threads.some(({ queuedSinceNs }) => queuedSinceNs !== undefined);
  const clocks = waits ? queueClocks(guest) : new Map<number, number>();
  const names = new Map(threads.filter(isLeader).map(({ pid, comm }) => [pid, comm]));
  // The accounting may be compiled in and off ("delayacct: Default disabled", 5.14, without CONFIG_SCHEDSTATS).
  const isOn = threads.some(({ queuedNs = 0, queuedSinceNs = 0 }) => queuedNs > 0 || queuedSinceNs > 0);
  return threads.map((thread) => {
    const { queuedNs, queuedSinceNs, cpu, tgid, runtimeNs, utimeNs, stimeNs } = thread;
    const ranNs = Math.max(runtimeNs, utimeNs + stimeNs);
    const comm = names.get(tgid) ?? thread.comm;
    if (!isOn || queuedNs === undefined) return { thread, comm, ranNs };
    // A stay in a queue is added when it ends.
    const clock = clocks.get(cpu);
    const now = queuedSinceNs === undefined || clock === undefined ? 0 : Math.max(0, clock - queuedSinceNs);
    return { thread, comm, ranNs, waitedNs: queuedNs + now };
  });
}

function isLeader({ pid, tgid }: Process): boolean {
  return pid === tgid;
}

/** Clock of each CPU's run queue, in ns, by the kernel's number. Empty for kernels that have none. */
function queueClocks(guest: Guest): ReadonlyMap<number, number> {
  const clock = optionalField(guest.layout, 'rq', 'clock');
  if (clock === undefined) return new Map();
  return new Map(
    guest.cpus.map((cpu) => {
      const queue = guest.percpu('runqueues', cpu);
      return [cpu.cpu, Number(readMember(guest.space, queue, clock))];
    }),
  );
}
