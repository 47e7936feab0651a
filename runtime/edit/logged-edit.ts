import type { Guest } from '../guest/guest.ts';
import { progressWords } from '../guest/progress.ts';
import type { LocatedWrite } from '../hypervisor/types.ts';
import type { GuestVirtual } from '../memory/address.ts';
import type { Edit } from './edit.ts';
import type { LoggedBytes, LoggedEdit } from './log.ts';

/** What is recorded of an edit of a guest, with the words that show whether it has run since. */
export function loggedEdit(guest: Guest, { title }: Edit, words: readonly LocatedWrite[]): LoggedEdit {
  const still = progressWords(guest).map((address) => bytesAt(guest, address));
  return { domain: guest.domain.identity.id, title, words, still };
}

function bytesAt({ space }: Guest, address: GuestVirtual): LoggedBytes {
  const { frame, offset } = space.locate(address, 8)[0]!;
  return { frame, offset, bytes: Buffer.from(space.readBytes(address, 8)).toString('hex') };
}
