/** Constants of one guest's kernel that edits use, each proved on the guest's own code (`runtime/code/`). */
import { preemptCountSize } from '../code/constants.ts';
import type { ConstantName, Constants } from '../code/prove.ts';
import type { Technique } from './step.ts';

/** Constants that every way to hold a thread of a fair scheduler needs. */
export interface ThreadBits {
  /** Bit of `thread_info.flags` that makes a thread run its works. */
  readonly notifyResume: bigint;
  /** Bit of `task.flags`: the task is exiting. */
  readonly exiting: bigint;
  /** Bits of `task.flags` of kernel threads, and of kernel workers that never come to user mode. */
  readonly workers: bigint;
}

/** Constants that parking needs. */
export interface ParkBits extends ThreadBits {
  /** Bit of `task.jobctl`. */
  readonly trapFreeze: bigint;
  /** `task.__state` in the freezer trap. */
  readonly trapState: bigint;
  /** `task.__state` values of a task stopped by job control or by a tracer. */
  readonly stopped: readonly bigint[];
}

/** Constants that a new nice value needs. */
export interface NiceBits {
  /** `task.__state` of a task that is just being woken. */
  readonly waking: bigint;
  /** Least number that sums of load are divided by. @throws DomschedError `refused` if it is not proved */
  readonly minDivider: () => bigint;
}

/** Constants that edits of O(1) queues need. */
export interface O1Bits {
  /** Bit of `thread_info.flags` that asks for `schedule()`. */
  readonly needResched: bigint;
  /** `task.state` that makes `schedule()` take a thread off its queue, and that nobody wakes. */
  readonly held: bigint;
}

/** Constants that edits of fair queues need. */
export interface SpliceBits {
  /** Bit of `thread_info.flags` that asks for `schedule()`. */
  readonly needResched: bigint;
  /** `task.on_rq` of a task in a queue. */
  readonly queued: bigint;
}

/** Constants that holding by state needs. */
export interface ProvedStateBits {
  readonly needResched: bigint;
  /** Bit of the preemption count, clear while the CPU is asked to call `schedule()`. */
  readonly preemptNeedResched: bigint;
  /** Width of that count in bytes. */
  readonly preemptCountSize: 4 | 8;
  /** Bits of `thread_info.flags` for a thread's work on its way to user mode, without works and `schedule()`. */
  readonly work: bigint;
  /** `task.__state` of a hold, and of a task that the guest is to wake. */
  readonly parked: bigint;
  readonly wakeable: bigint;
}

const THREAD = [
  ...(['TIF_NOTIFY_RESUME', 'PF_EXITING', 'PF_KTHREAD', 'PF_IO_WORKER', 'PF_USER_WORKER'] as const),
  ...(['TASK_WAKING', 'process_timer.task'] as const),
] as const;
const TRAP = ['JOBCTL_TRAP_FREEZE', 'trap state', 'TASK_STOPPED', 'TASK_TRACED'] as const;
const SPLICE = ['TIF_NEED_RESCHED', 'TASK_ON_RQ_QUEUED'] as const;
const STATE = [
  ...(['TIF_NEED_RESCHED', 'PREEMPT_NEED_RESCHED', 'EXIT_TO_USER_MODE_WORK', 'TASK_PARKED'] as const),
  ...(['TASK_NORMAL', 'trap state'] as const),
] as const;

/** Constants needed by each technique. Nothing is held by state that could not also be spliced. */
export const NEEDED: Readonly<Record<Technique, readonly ConstantName[]>> = {
  park: [...THREAD, ...TRAP],
  splice: [...THREAD, ...SPLICE],
  state: [...THREAD, ...SPLICE, ...STATE],
};

/** Constants that O(1) queues need. */
export const NEEDED_BY_O1 = ['TIF_NEED_RESCHED', 'state of a hold', 'PF_EXITING'] as const;

/** @throws DomschedError `refused`, naming the constant and the function that should have shown it */
export function o1Bits(constants: Constants): O1Bits {
  return { needResched: constants.get('TIF_NEED_RESCHED'), held: constants.get('state of a hold') };
}

/** @throws DomschedError as {@link o1Bits} */
export function threadBits(constants: Constants): ThreadBits {
  const of = (name: (typeof THREAD)[number]) => constants.get(name);
  return {
    notifyResume: of('TIF_NOTIFY_RESUME'),
    exiting: of('PF_EXITING'),
    workers: of('PF_KTHREAD') | of('PF_IO_WORKER') | of('PF_USER_WORKER'),
  };
}

/** @throws DomschedError as {@link o1Bits} */
export function parkBits(constants: Constants): ParkBits {
  const of = (name: (typeof TRAP)[number]) => constants.get(name);
  return {
    ...threadBits(constants),
    trapFreeze: of('JOBCTL_TRAP_FREEZE'),
    trapState: of('trap state'),
    stopped: [of('TASK_STOPPED'), of('TASK_TRACED')],
  };
}

/** @throws DomschedError as {@link o1Bits} */
export function niceBits(constants: Constants): NiceBits {
  return {
    waking: constants.get('TASK_WAKING'),
    minDivider: () => constants.get('PELT_MIN_DIVIDER', 'reniced'),
  };
}

/** @throws DomschedError as {@link o1Bits} */
export function spliceBits(constants: Constants): SpliceBits {
  return { needResched: constants.get('TIF_NEED_RESCHED'), queued: constants.get('TASK_ON_RQ_QUEUED') };
}

/** Null if one of them is not proved. */
export function stateBits(constants: Constants): ProvedStateBits | null {
  if (constants.missing(NEEDED.state) !== null) return null;
  const needResched = constants.get('TIF_NEED_RESCHED');
  const looked = needResched | constants.get('TIF_NOTIFY_RESUME');
  return {
    needResched,
    preemptNeedResched: constants.get('PREEMPT_NEED_RESCHED'),
    preemptCountSize: preemptCountSize(constants.get('PREEMPT_NEED_RESCHED')),
    work: constants.get('EXIT_TO_USER_MODE_WORK') & ~looked,
    parked: constants.get('TASK_PARKED'),
    wakeable: constants.get('trap state') & constants.get('TASK_NORMAL'),
  };
}
