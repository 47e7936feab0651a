import type {
  AccountSample,
  DomainTimes,
  GuestThreadTimes,
  HostThreadTimes,
} from '../../../runtime/blame/sample.ts';

/** Milliseconds as ns. */
export const MS = 1e6;

/** A guest of one vCPU, thread 1000 + `pid` of the host, on one of its CPUs. All times are ms since the start. */
export interface Scene {
  readonly name: string;
  readonly pid: number;
  readonly hostCpu?: number;
  /** The vCPU's. */
  readonly ran: number;
  readonly waited: number;
  /** By name: CPU time that the guest claims, and time in its run queue. */
  readonly threads: Readonly<Record<string, readonly [ran: number, waited?: number]>>;
}

export function sampleAt(
  ms: number,
  scenes: readonly Scene[],
  processes: Readonly<Record<string, { readonly ran: number; readonly cpu: number }>> = {},
): AccountSample {
  const vcpus = scenes.map(({ pid, ran, waited, hostCpu = 0, name }) => ({
    tid: 1000 + pid,
    pid,
    comm: `qemu-${name}`,
    cpu: hostCpu,
    ranNs: ran * MS,
    waitedNs: waited * MS,
  }));
  const others = Object.entries(processes).map(
    ([comm, { ran, cpu }], i): HostThreadTimes => ({
      tid: 10 + i,
      pid: 10 + i,
      comm,
      cpu,
      ranNs: ran * MS,
      waitedNs: 0,
    }),
  );
  return { ms, threads: [...vcpus, ...others], domains: scenes.map((scene, i) => domain(scene, vcpus[i]!)) };
}

function domain({ name, pid, threads }: Scene, { tid, ranNs, waitedNs, cpu }: HostThreadTimes): DomainTimes {
  return {
    id: `pid:${pid}`,
    name,
    pid,
    cpus: [0],
    vcpus: [{ vcpu: 0, tid, ranNs, waitedNs, cpu }],
    threads: Object.entries(threads).map(
      ([comm, [ran, waited]], i): GuestThreadTimes => ({
        key: `${i} ${comm}`,
        pid: 100 + i,
        comm,
        cpu: 0,
        ranNs: ran * MS,
        ...(waited !== undefined && { waitedNs: waited * MS }),
        ready: false,
      }),
    ),
  };
}
