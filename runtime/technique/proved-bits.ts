/** Constants of one guest's kernel as edits use them, each proved on the guest's own code (`runtime/code/`). */
import { type ConstantName, preemptCountSize } from '../code/constants.ts';
import type { Constants } from '../code/prove.ts';
import type { Technique } from './step.ts';

/** What parking needs. */
export interface ParkBits {
  /** Of `thread_info.flags`: has works run. */
  readonly notifyResume: bigint;
  /** Of `task.jobctl`. */
  readonly trapFreeze: bigint;
  /** Of `task.flags`: on its way out of this world. */
  readonly exiting: bigint;
  /** Of `task.flags`: kernel threads, and workers of the kernel's that never come to user mode. */
  readonly workers: bigint;
  /** `task.__state` in the freezer trap. */
  readonly trapState: bigint;
  /** `task.__state` of who is stopped by job control, or by a tracer. */
  readonly stopped: readonly bigint[];
}

/** What a new nice value needs. */
export interface NiceBits {
  /** `task.__state` of who is just being woken. */
  readonly waking: bigint;
}

/** What edits of fair queues need, of threads and idle tasks. */
export interface SpliceBits {
  /** Of `thread_info.flags`: call `schedule()`. */
  readonly needResched: bigint;
  /** `task.on_rq` of who is in a queue. */
  readonly queued: bigint;
}

/** What holding by state needs. */
export interface ProvedStateBits {
  readonly needResched: bigint;
  /** Of the preemption count: clear where the CPU is to call `schedule()`. */
  readonly preemptNeedResched: bigint;
  /** Bytes of that count. */
  readonly preemptCountSize: 4 | 8;
  /** Of `thread_info.flags`: what a thread does on its way to user mode, but for works and `schedule()`. */
  readonly work: bigint;
  /** `task.__state` of a hold, and of one that the guest is to wake. */
  readonly parked: bigint;
  readonly wakeable: bigint;
}

const PARK = [
  ...(['TIF_NOTIFY_RESUME', 'JOBCTL_TRAP_FREEZE', 'PF_EXITING', 'PF_KTHREAD', 'PF_IO_WORKER'] as const),
  ...(['PF_USER_WORKER', 'trap state', 'TASK_STOPPED', 'TASK_TRACED', 'TASK_WAKING'] as const),
];
const SPLICE = ['TIF_NEED_RESCHED', 'TASK_ON_RQ_QUEUED'] as const;
const STATE = [
  ...(['TIF_NEED_RESCHED', 'PREEMPT_NEED_RESCHED', 'EXIT_TO_USER_MODE_WORK', 'TASK_PARKED'] as const),
  'TASK_NORMAL',
] as const;

/** By technique, the constants that it takes. By state nothing is held that could not be spliced or parked. */
export const NEEDED: Readonly<Record<Technique, readonly ConstantName[]>> = {
  park: PARK,
  splice: [...PARK, ...SPLICE],
  state: [...PARK, ...SPLICE, ...STATE],
};

/** @throws DomschedError `refused`, naming the constant and the function that should have shown it */
export function parkBits(constants: Constants): ParkBits {
  const of = (name: (typeof PARK)[number]) => constants.get(name);
  return {
    notifyResume: of('TIF_NOTIFY_RESUME'),
    trapFreeze: of('JOBCTL_TRAP_FREEZE'),
    exiting: of('PF_EXITING'),
    workers: of('PF_KTHREAD') | of('PF_IO_WORKER') | of('PF_USER_WORKER'),
    trapState: of('trap state'),
    stopped: [of('TASK_STOPPED'), of('TASK_TRACED')],
  };
}

/** @throws DomschedError as {@link parkBits} */
export function niceBits(constants: Constants): NiceBits {
  return { waking: constants.get('TASK_WAKING') };
}

/** @throws DomschedError as {@link parkBits} */
export function spliceBits(constants: Constants): SpliceBits {
  return { needResched: constants.get('TIF_NEED_RESCHED'), queued: constants.get('TASK_ON_RQ_QUEUED') };
}

/** Null where one of them is not proved. */
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
