import type { GuestVirtual } from '../memory/address.ts';
import type { ProcessState } from './state.ts';

/** A process of a guest, or one of its threads. */
export interface Process {
  readonly pid: number;
  /** Process that the thread belongs to. */
  readonly tgid: number;
  readonly ppid: number;
  /** Name, safe to print: what is not printable ASCII is escaped. */
  readonly comm: string;
  /** Name as the guest has it, one character per byte. Never print it. */
  readonly rawComm: string;
  readonly state: ProcessState;
  /** CPU that it runs on or ran on last. */
  readonly cpu: number;
  /** -20 to 19. */
  readonly nice: number;
  /** `normal`, `batch`, `idle`, `fifo`, `rr`, `deadline`, `ext`. */
  readonly policy: string;
  /** Of a process: all its threads together, ended ones included. */
  readonly utimeNs: number;
  readonly stimeNs: number;
  /** As the scheduler measured it. */
  readonly runtimeNs: number;
  /** Threads of the process. */
  readonly threads: number;
  readonly kernelThread: boolean;
  /** What memory is freed through goes through it (PR_SET_IO_FLUSHER): the guest may wait for it anywhere. */
  readonly ioFlusher?: true;
  /** Is on its way out: nothing that is done to it now lasts. */
  readonly exiting: boolean;
  /** Of its task_struct. With `startTimeNs` it tells it from every process that had this pid before. */
  readonly address: GuestVirtual;
  /** Since the guest's boot. */
  readonly startTimeNs: number;
}
