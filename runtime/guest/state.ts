/** State of a task, as far as schedulers care. */
export type ProcessState =
  /** It is on a CPU now. */
  | 'running'
  /** It waits for a CPU in a run queue. */
  | 'ready'
  /** It waits, and a signal wakes it. */
  | 'sleeping'
  /** It waits, and only what it waits for wakes it. */
  | 'disk-sleep'
  /** It waits like `disk-sleep` but counts as idle, such as a kernel thread without work. */
  | 'idle'
  | 'stopped'
  | 'traced'
  | 'parked'
  /** Domsched stopped it from outside. */
  | 'held'
  | 'zombie'
  | 'dead';

/**
 * Numbers of the bits in the state words in one era of kernels. They are macros, so no layout has them; a kernel's
 * members show its era. They only choose a word; edits read theirs from the kernel's code.
 */
export interface StateBits {
  readonly interruptible: number;
  readonly uninterruptible: number;
  readonly stopped: number;
  readonly traced: number;
  readonly parked: number;
  /** Together with `uninterruptible`: the task does not count as load. */
  readonly noLoad: number;
  /** The task waits for a sleeping spinlock of PREEMPT_RT. */
  readonly lockWait: number;
  /** The freezer stopped the task while it waited. */
  readonly frozen: number;
  /** The task has run for the last time. */
  readonly gone: number;
  /** These two are bits of `exit_state`. */
  readonly zombie: number;
  readonly dead: number;
}

/**
 * Values above 8 are those of include/linux/sched.h since 4.14. `lockWait` came with "sched/wakeup: Prepare for RT
 * sleeping spin/rwlocks", 5.15, `frozen` with "freezer,sched: Rewrite core freezer logic", 6.1.
 */
export const STATE_BITS: StateBits = {
  interruptible: 0x1,
  uninterruptible: 0x2,
  stopped: 0x4,
  traced: 0x8,
  parked: 0x40,
  noLoad: 0x400,
  lockWait: 0x1000,
  frozen: 0x8000,
  gone: 0x80,
  zombie: 0x20,
  dead: 0x10,
};

/** 2.6.16 (include/linux/sched.h): zombie and dead are swapped in `exit_state`, until 3.15. */
export const O1_STATE_BITS: StateBits = {
  interruptible: 0x1,
  uninterruptible: 0x2,
  stopped: 0x4,
  traced: 0x8,
  parked: 0,
  noLoad: 0,
  lockWait: 0,
  frozen: 0,
  gone: 0,
  zombie: 0x10,
  dead: 0x20,
};

/**
 * Decodes the state as the guest's own /proc would show it.
 * @param onCpu whether the task is current on a CPU
 */
export function decodeState(bits: StateBits, state: number, exitState: number, onCpu: boolean): ProcessState {
  if (exitState & bits.zombie) return 'zombie';
  if (exitState & bits.dead) return 'dead';
  if (state & bits.parked) return 'parked';
  if (state & bits.traced) return 'traced';
  if (state & bits.stopped) return 'stopped';
  if (state & (bits.lockWait | bits.frozen)) return 'disk-sleep';
  if (state & bits.uninterruptible) return state & bits.noLoad ? 'idle' : 'disk-sleep';
  if (state & bits.interruptible) return 'sleeping';
  if (state & bits.gone) return 'dead';
  // The state is zero, or says only that the task is new or about to be woken; /proc shows R for all of these.
  return onCpu ? 'running' : 'ready';
}

const POLICIES: Readonly<Record<number, string>> = {
  0: 'normal',
  1: 'fifo',
  2: 'rr',
  3: 'batch',
  5: 'idle',
  6: 'deadline',
  7: 'ext',
};

/** Name of a scheduling policy (include/uapi/linux/sched.h); `policy-N` for a number without one. */
export function policyName(policy: number): string {
  return POLICIES[policy] ?? `policy-${policy}`;
}
