import { get, type Word } from '../edit/member.ts';
import type { MemoryView } from '../edit/memory-view.ts';
import { DomschedError } from '../error.ts';
import { type Lock, lockHeld } from '../guest/locks.ts';
import type { GuestVirtual } from '../memory/address.ts';

/** @throws DomschedError `lock-held` when the lock in the structure at `base` is taken: try again later */
export function checkLockFree(memory: MemoryView, base: GuestVirtual, lock: Lock): void {
  if (!lockHeld(lock, Number(get(memory, base, lock.word as Word)))) return;
  throw new DomschedError('lock-held', `${lock.name} is held`, { lock: lock.name });
}
