import type { MemoryView, WordSize } from '../edit/memory-view.ts';
import { DomschedError } from '../error.ts';
import { type LockPlan, lockHeld } from '../guest/locks.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';

/** A spinlock in the structure around it. */
export interface LockField extends LockPlan {
  /** For messages: `sighand.siglock`. */
  readonly name: string;
}

/** @throws DomschedError `lock-held` when the lock in the structure at `base` is taken: try again later */
export function checkLockFree(memory: MemoryView, base: GuestVirtual, lock: LockField): void {
  const { offset, size } = lock.word!;
  if (!lockHeld(lock, Number(memory.word(advance(base, offset), size as WordSize)))) return;
  throw new DomschedError('lock-held', `${lock.name} is held`, { lock: lock.name });
}
