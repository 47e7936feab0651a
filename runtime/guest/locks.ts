import type { Field } from '../layout/field.ts';
import { hasMember, type Member, memberAt, pathsOf } from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import type { MemberName, RoleOf, StructName } from '../members/members.ts';

/** How a kernel marks a spinlock as held. */
export type LockKind =
  /** 2.6.24 and earlier: 1 is free; 0 and less is held. */
  | 'byte'
  /** 2.6.25 to 4.1 ("x86: FIFO ticket spinlocks"): head and tail differ while held. */
  | 'ticket'
  /** Since 4.2 ("locking/qspinlock: Introduce a simple generic 4-byte queued spinlock"): 0 is free. */
  | 'queued'
  /** PREEMPT_RT ("locking/rtmutex: Provide the spin/rwlock core lock function", 5.15): held while it has an owner. */
  | 'owner'
  /** A kernel without SMP has no spinlocks, and this word does not exist. */
  | 'none';

/** A spinlock and its place in the structure around it. */
export interface Lock {
  /** Name for messages, such as `sighand.siglock`. */
  readonly name: string;
  readonly kind: LockKind;
  readonly word: Member<'number'> | undefined;
}

type LockName<S extends StructName> = {
  [M in MemberName<S>]: RoleOf<S, M> extends 'lock' ? M : never;
}[MemberName<S>];

/**
 * Finds the word of a spinlock and its kind by the members that it has, inside `spinlock_t`, `raw_spinlock_t` or the
 * wrappers of the word itself.
 */
export function lockOf<S extends StructName>(layout: LayoutView, struct: S, member: LockName<S>): Lock {
  const name = `${struct.replace(/_struct$/, '')}.${member}`;
  const field = (path: string): Field | undefined => layout.struct(struct)?.member(path);
  const found = (kind: LockKind, word: Field): Lock => ({ name, kind, word: memberAt(word, 'number') });
  for (const path of pathsOf(struct, member)) {
    // spinlock_t wraps a raw_spinlock since "locking: Convert raw_spinlock to arch_spinlock", 2.6.33.
    for (const inner of [path, `${path}.rlock`, `${path}.lock`]) {
      const queued = field(`${inner}.raw_lock.val`);
      if (queued !== undefined) return found('queued', queued);
      const owner = field(`${inner}.owner`);
      if (owner?.size === 8) return found('owner', owner);
      const ticket = field(`${inner}.raw_lock.head_tail`);
      if (ticket !== undefined) return found('ticket', ticket);
      const word = field(`${inner}.raw_lock.slock`);
      // Byte and ticket locks are spelt the same; kernels with O(1) arrays (to 2.6.22) have byte locks only.
      if (word !== undefined) return found(hasMember(layout, 'rq', 'active') ? 'byte' : 'ticket', word);
    }
  }
  return { name, kind: 'none', word: undefined };
}

/**
 * Whether a lock is held.
 * @param value the value of its word
 */
export function lockHeld({ kind, word }: Pick<Lock, 'kind' | 'word'>, value: number): boolean {
  const bits = 8 * (word?.size ?? 0);
  const unsigned = value < 0 ? value + 2 ** bits : value;
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
