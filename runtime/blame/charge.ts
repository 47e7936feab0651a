/** Who had a CPU while somebody else waited for it. */
export interface Culprit {
  /**
   * `process` is a guest's; `guest` is the rest of a guest: its kernel, its interrupts, processes too short-lived to be
   * seen, or all of a guest that cannot be read; `machine` are the threads of its hypervisor's process that run none of
   * its CPUs; `host` is a process of the host; `cap` is the limit of the waiting domain itself; `unknown` is nobody that
   * we could see.
   */
  readonly kind: 'process' | 'guest' | 'machine' | 'host' | 'cap' | 'unknown';
  /** Name of its domain; absent for the host's. */
  readonly domain?: string;
  /** Name of the process; absent unless it is one. */
  readonly comm?: string;
}

/** Where somebody waited: in its guest's run queue, or on the host together with its vCPU. */
export type WaitPlace = 'guest' | 'host';

/** Time for which processes of one name in one domain were ready and did not run, because of one culprit. */
export interface Charge {
  readonly domain: string;
  readonly pid: number;
  readonly comm: string;
  readonly culprit: Culprit;
  readonly place: WaitPlace;
  /** Whole and positive. */
  readonly ns: number;
}

export function culpritKey({ kind, domain = '', comm = '' }: Culprit): string {
  return `${kind}\0${domain}\0${comm}`;
}
