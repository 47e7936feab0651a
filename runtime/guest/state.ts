/** What a task does, as far as schedulers care. */
export type ProcessState =
  /** On a CPU now. */
  | 'running'
  /** In a run queue, waiting for a CPU. */
  | 'ready'
  /** Waits, and a signal wakes it. */
  | 'sleeping'
  /** Waits, and nothing but what it waits for wakes it. */
  | 'disk-sleep'
  /** Waits like `disk-sleep`, but counts as idle: kernel threads without work. */
  | 'idle'
  | 'stopped'
  | 'traced'
  | 'parked'
  /** Stopped from outside, by domsched. */
  | 'held'
  | 'zombie'
  | 'dead';

/**
 * Bits of the state words as numbered by one era of kernels. They are macros, so no layout has them; which era a
 * kernel is of shows in its members.
 */
export interface StateBits {
  readonly interruptible: number;
  readonly uninterruptible: number;
  readonly stopped: number;
  readonly traced: number;
  readonly parked: number;
  /** With `uninterruptible`: does not count as load. */
  readonly noLoad: number;
  /** Waits for a sleeping spinlock of PREEMPT_RT. */
  readonly lockWait: number;
  /** Stopped by the freezer while waiting. */
  readonly frozen: number;
  /** Has run for the last time. */
  readonly gone: number;
  /** Of `exit_state`. */
  readonly zombie: number;
  readonly dead: number;
}

/**
 * The numbers above 8 are those that include/linux/sched.h has had since 4.14. `lockWait`: "sched/wakeup: Prepare for
 * RT sleeping spin/rwlocks", 5.15. `frozen`: "freezer,sched: Rewrite core freezer logic", 6.1.
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

/** 2.6.16 (include/linux/sched.h): `exit_state` has zombie and dead the other way round, until 3.15. */
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
 * Decodes what the guest's own /proc would call the state.
 * @param onCpu the task is current on a CPU
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
  // Zero, or bits that only say that it is new or about to be woken: /proc calls all of them R.
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
