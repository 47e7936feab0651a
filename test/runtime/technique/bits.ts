/**
 * What the models of guests have for their kernel's macros: those of Linux 6.18, whose flags of a thread are others than
 * before ("x86: Use generic TIF bits"; include/asm-generic/thread_info_tif.h, include/linux/sched.h). So an edit that
 * took an older kernel's number would do the wrong thing to a model.
 */
import type {
  NiceBits,
  O1Bits,
  ParkBits,
  ProvedStateBits,
  SpliceBits,
} from '../../../runtime/technique/proved-bits.ts';

export const TIF = {
  NOTIFY_RESUME: 1n << 0n,
  SIGPENDING: 1n << 1n,
  NOTIFY_SIGNAL: 1n << 2n,
  MEMDIE: 1n << 3n,
  NEED_RESCHED: 1n << 4n,
  NEED_RESCHED_LAZY: 1n << 5n,
  UPROBE: 1n << 8n,
  PATCH_PENDING: 1n << 9n,
};
export const TRAP_FREEZE = 1n << 23n;
export const TRAP_STATE = 0x2001n;
export const TASK_PARKED = 0x40n;
export const TASK_INTERRUPTIBLE = 1n;
/** TASK_STOPPED, which can be killed; TASK_TRACED is without that since 5.19. */
export const TASK_STOPPED = 0x104n;
const TASK_TRACED = 8n;

export const parkBits: ParkBits = {
  notifyResume: TIF.NOTIFY_RESUME,
  trapFreeze: TRAP_FREEZE,
  exiting: 4n,
  workers: 0x20_0000n | 0x10n | 0x4000n,
  trapState: TRAP_STATE,
  stopped: [TASK_STOPPED, TASK_TRACED],
};

export const niceBits: NiceBits = { waking: 0x200n, minDivider: () => 46_718n };

/** Other numbers than 2.6.16 has (bit 3, and 64), so that an edit that took those would do the wrong thing. */
export const o1Bits: O1Bits = { needResched: 1n << 5n, held: 1n << 8n };

export const spliceBits: SpliceBits = { needResched: TIF.NEED_RESCHED, queued: 1n };

export const stateBits: ProvedStateBits = {
  needResched: TIF.NEED_RESCHED,
  preemptNeedResched: 1n << 31n,
  preemptCountSize: 4,
  work: TIF.SIGPENDING | TIF.NOTIFY_SIGNAL | TIF.UPROBE | TIF.PATCH_PENDING | TIF.NEED_RESCHED_LAZY,
  parked: TASK_PARKED,
  wakeable: TASK_INTERRUPTIBLE,
};
