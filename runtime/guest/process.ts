import type { GuestVirtual } from '../memory/address.ts';
import type { ProcessState } from './state.ts';

/** A process of a guest, or one of its threads. */
export interface Process {
  readonly pid: number;
  /** Process that the thread belongs to. */
  readonly tgid: number;
  readonly ppid: number;
  /** Name that is safe to print: bytes that are not printable ASCII are escaped. */
  readonly comm: string;
  /** Name in the guest's own bytes, one character per byte. Never print it. */
  readonly rawComm: string;
  readonly state: ProcessState;
  /** CPU that it runs on or last ran on. */
  readonly cpu: number;
  /** -20 to 19. */
  readonly nice: number;
  /** One of `normal`, `batch`, `idle`, `fifo`, `rr`, `deadline`, `ext`. */
  readonly policy: string;
  /** For a process: all its threads together, ended ones included. */
  readonly utimeNs: number;
  readonly stimeNs: number;
  /** Run time as the scheduler measured it. */
  readonly runtimeNs: number;
  /** Time that its threads spent in run queues, without stays that last; absent if its kernel does not account it. */
  readonly queuedNs?: number;
  /** For a single thread that is in a run queue now: since when, on the clock of that queue. */
  readonly queuedSinceNs?: number;
  /** Number of threads of the process. */
  readonly threads: number;
  readonly kernelThread: boolean;
  /** The guest frees memory through it (PR_SET_IO_FLUSHER), and so may wait for it anywhere. */
  readonly ioFlusher?: true;
  /** It is exiting: nothing that is done to it now lasts. */
  readonly exiting: boolean;
  /**
   * Threads that may be held: by their words they are neither at rest nor at work. A closer look tells; most often there
   * are none.
   */
  readonly suspects?: readonly GuestVirtual[];
  /** Address of its task_struct. With `startTimeNs` it tells the process from all earlier ones with this pid. */
  readonly address: GuestVirtual;
  /** Time since the guest's boot. */
  readonly startTimeNs: number;
}
