import type { LayoutView } from '../layout/view.ts';
import { field, type Place } from './fields.ts';

/** How a kernel marks a spinlock as held. */
export type LockKind =
  /** 2.6.24 and earlier: 1 is free, 0 and less are held. */
  | 'byte'
  /** 2.6.25 to 4.1 ("x86: FIFO ticket spinlocks"): head and tail differ while held. */
  | 'ticket'
  /** Since 4.2 ("locking/qspinlock: Introduce a simple generic 4-byte queued spinlock"): 0 is free. */
  | 'queued'
  /** PREEMPT_RT's sleeping spinlocks ("locking/rtmutex: Provide the spin/rwlock core lock function", 5.15): an owner. */
  | 'owner'
  /** A kernel without SMP has no spinlocks: the word does not exist. */
  | 'none';

/** Where a lock's word is and how to read it. */
export interface LockPlan {
  readonly kind: LockKind;
  /** Within the structure around the lock. */
  readonly word: Place | undefined;
}

/**
 * Finds the word of a spinlock by which members it has, under `spinlock_t`, `raw_spinlock_t` and the word's own
 * wrappers alike.
 * @param struct structure around the lock
 * @param path the lock's member in it
 */
export function planLock(layout: LayoutView, struct: string, path: string): LockPlan {
  // spinlock_t wraps a raw_spinlock since "locking: Convert raw_spinlock to arch_spinlock", 2.6.33.
  for (const inner of [path, `${path}.rlock`, `${path}.lock`]) {
    const queued = field(layout, struct, `${inner}.raw_lock.val`);
    if (queued !== undefined) return { kind: 'queued', word: queued };
    const owner = field(layout, struct, `${inner}.owner`);
    if (owner?.size === 8) return { kind: 'owner', word: owner };
    const ticket = field(layout, struct, `${inner}.raw_lock.head_tail`);
    if (ticket !== undefined) return { kind: 'ticket', word: ticket };
    const word = field(layout, struct, `${inner}.raw_lock.slock`);
    if (word === undefined) continue;
    // The same spelling served byte and ticket locks; kernels with O(1) arrays (to 2.6.22) had the former only.
    const old = field(layout, 'rq', 'active') !== undefined;
    return { kind: old ? 'byte' : 'ticket', word };
  }
  return { kind: 'none', word: undefined };
}

/**
 * Whether a lock is held.
 * @param word its word, as wide as {@link LockPlan.word} says
 */
export function lockHeld({ kind, word: place }: LockPlan, word: number): boolean {
  const bits = 8 * (place?.size ?? 0);
  const unsigned = word < 0 ? word + 2 ** bits : word;
  switch (kind) {
    case 'none':
      return false;
    case 'byte':
      return unsigned === 0 || unsigned >= 2 ** (bits - 1);
    case 'ticket': {
      const half = 2 ** (bits / 2);
      return Math.floor(unsigned / half) !== unsigned % half;
    }
    case 'owner':
    case 'queued':
      return unsigned !== 0;
  }
}
