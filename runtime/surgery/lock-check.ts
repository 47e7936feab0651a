import { DomschedError } from '../error.ts';
import { lockHeld } from '../guest/locks.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { MemoryView } from './memory-view.ts';
import type { LockField } from './park-layout.ts';

/** @throws DomschedError `lock-held` when the lock in the structure at `base` is taken: try again later */
export function checkLockFree(memory: MemoryView, base: GuestVirtual, lock: LockField): void {
  const word = lock.word!;
  const at = advance(base, word.offset);
  const low = Number(memory.signed(at, 4));
  const high = lock.kind === 'owner' ? Number(memory.signed(advance(at, 4), 4)) : 0;
  if (!lockHeld(lock.kind, low, high)) return;
  throw new DomschedError('lock-held', `${lock.name} is held`, { lock: lock.name });
}
