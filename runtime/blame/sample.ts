/**
 * What host and guests have accounted at one moment, as plain JSON. All times are sums since some start, in ns: only the
 * difference of two samples has a meaning.
 */

/** A thread of the host. */
export interface HostThreadTimes {
  readonly tid: number;
  /** Its process, and that process's name, safe to print. */
  readonly pid: number;
  readonly comm: string;
  /** Host CPU that it runs on, waits for or last ran on. */
  readonly cpu: number;
  readonly ranNs: number;
  /** Time that it was ready and did not run. */
  readonly waitedNs: number;
}

/** A vCPU as the host accounts it. */
export interface VcpuTimes {
  readonly vcpu: number;
  /** Thread of the host that runs it, if there is one; that thread is then among the host's too. */
  readonly tid?: number;
  readonly ranNs: number;
  readonly waitedNs: number;
  /** Host CPU; absent if unknown. */
  readonly cpu?: number;
}

/** A thread as its guest accounts it. A guest may say anything here. */
export interface GuestThreadTimes {
  /** Unlike that of any other thread of this guest, ended ones included. */
  readonly key: string;
  /** Its process, and that process's name, safe to print. */
  readonly pid: number;
  readonly comm: string;
  /** The guest's CPU that it runs on, waits for or last ran on. */
  readonly cpu: number;
  readonly ranNs: number;
  /** Time in a run queue, up to now. Absent if this kernel does not account it. */
  readonly waitedNs?: number;
  /** At this moment it is in a run queue and not on a CPU. */
  readonly ready: boolean;
}

export interface DomainTimes {
  readonly id: string;
  /** As the hypervisor has it: not safe to print. */
  readonly name: string;
  /** Process of the host that runs it, if there is one. */
  readonly pid?: number;
  readonly vcpus: readonly VcpuTimes[];
  /** CPUs that its kernel uses. */
  readonly cpus: readonly number[];
  readonly threads: readonly GuestThreadTimes[];
  /** Time in which its control group let it have no CPU (a cap); absent if it has none to itself. */
  readonly cappedNs?: number;
  /** Why its processes could not be read. `vcpus` may be known all the same. */
  readonly error?: { readonly code: string; readonly message: string };
}

export interface AccountSample {
  /** Monotonic, in ms. */
  readonly ms: number;
  readonly threads: readonly HostThreadTimes[];
  readonly domains: readonly DomainTimes[];
}
