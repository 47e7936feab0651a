import { DomschedError } from '../error.ts';
import type { DomainWith, LocatedWrite, PauseGuard, WordEdit } from '../hypervisor/types.ts';
import { formatAddress } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import { Draft, wordBytes } from './draft.ts';
import type { Edit, EditWrite } from './edit.ts';
import {
  type AfterCommit,
  firstError,
  nothingWritten,
  notWritten,
  PAUSE_ENDS,
  type WordChecks,
  writeWords,
} from './write-words.ts';

/**
 * Called after the edit is checked and before its first byte is written, to record it durably. The function that it
 * returns is called afterwards, unless the old bytes could not be restored.
 */
export type BeforeCommit = (edit: Edit, writes: readonly LocatedWrite[]) => Promise<AfterCommit | undefined>;

/**
 * Commits a planned edit to a paused domain: afterwards either all writes are in the guest and its invariants hold, or
 * the guest is unchanged.
 *
 * Every word is written whole and within one frame. Everything that the plan looked at is compared once more first, so
 * an edit planned under another pause, or against memory that somebody else changed, is refused. Because anybody may
 * resume a machine, the hypervisor itself proves the pause just before the first byte and after the last.
 *
 * @throws DomschedError `edit-conflict` if the guest differs from what the plan saw, or runs; `refused` if it is being
 *   moved or stands still without a pause, or if the pause ends with our process and the edit is not harmless in parts;
 *   `domain-gone` if it has ended; `guest-inconsistent` if an invariant fails, now or on the copy as it is to be;
 *   `edit-failed` if a write failed, with
 *   `details.restored` telling whether the old bytes are back; `edit-torn` if it did not stand still while the words
 *   were written; whatever `journal` throws. The guest is unchanged in all cases but `edit-torn` and `restored: false`.
 */
export async function commit(
  domain: DomainWith<'writeFrames'>,
  space: AddressSpace,
  guard: PauseGuard,
  edit: Edit,
  journal: BeforeCommit = async () => undefined,
): Promise<void> {
  if (guard.endsWithUs && !edit.harmlessInParts) throw outlived(domain, edit);
  if (!guard.valid) throw nothingWritten(edit, await guard.prove().catch((error: unknown) => error));
  checkUnchanged(space, edit);
  const planned = new Draft(space);
  for (const invariant of edit.invariants) invariant.check(planned);
  checkPlanned(planned, edit);
  // Locate before the first write: after that, only the writes themselves can fail.
  const located = edit.writes.map((write) => locate(space, write));
  const check: WordChecks = {
    written: () => {
      const after = new Draft(space);
      for (const write of edit.writes) expectWord(after, write, write.new);
      for (const invariant of [...edit.invariants, ...edit.outcome]) invariant.check(after);
    },
    restored: () => {
      const after = new Draft(space);
      for (const write of edit.writes) expectWord(after, write, write.old);
    },
  };
  if (domain.writeFrames.edit === undefined) {
    await writeWords(domain, guard, edit, located, () => journal(edit, located), check);
  } else {
    await journal(edit, located);
    await haveWritten(domain.writeFrames.edit, guard, edit, located, check);
  }
}

/**
 * A plan that is wrong for this guest is found out on the copy, before any word of it is in the guest.
 * @param copy the guest as it is; as it is to be afterwards
 * @throws DomschedError `guest-inconsistent`
 */
function checkPlanned(copy: Draft, edit: Edit): void {
  const wrong = firstError(() => {
    for (const { address, size, new: value, what } of edit.writes) copy.set(address, size, value, what);
    for (const invariant of [...edit.invariants, ...edit.outcome]) invariant.check(copy);
  });
  if (wrong === undefined) return;
  const reason = wrong.error instanceof Error ? wrong.error.message : String(wrong.error);
  const message = `${edit.title}: afterwards it would be so: ${reason}; nothing was written`;
  throw new DomschedError('guest-inconsistent', message, { edit: edit.title }, { cause: wrong.error });
}

/** Has another process write the words, which does all that {@link writeWords} does, and looks at the outcome. */
async function haveWritten(
  write: (edit: WordEdit) => Promise<void>,
  guard: PauseGuard,
  edit: Edit,
  words: readonly LocatedWrite[],
  check: WordChecks,
): Promise<void> {
  const { title, harmlessInParts } = edit;
  const request = { title, ...(harmlessInParts && { harmlessInParts }) };
  await write({ ...request, words });
  const failure = firstError(check.written);
  if (failure === undefined) return;
  const back = words.map((word) => ({ ...word, old: word.new, new: word.old })).reverse();
  const failures: unknown[] = [];
  await write({ ...request, title: `undo ${title}`, words: back }).catch((error) => failures.push(error));
  const failed = notWritten(edit, check, failures, failure.error);
  if (!failed.details.restored) guard.abandon();
  throw failed;
}

/** Refuses an edit during which our death would let the guest continue with a part of it. */
function outlived(domain: DomainWith<'writeFrames'>, edit: Edit): DomschedError {
  const { name } = domain.identity;
  return new DomschedError('refused', `${edit.title}: ${name} ${PAUSE_ENDS}; nothing was written`, {
    edit: edit.title,
  });
}

function checkUnchanged(space: AddressSpace, edit: Edit): void {
  for (const { address, bytes } of edit.reads) {
    const now = space.readBytes(address, bytes.length);
    if (Buffer.compare(now, bytes) === 0) continue;
    throw new DomschedError(
      'edit-conflict',
      `${edit.title}: memory at ${formatAddress(address)} changed since it was planned; plan it again`,
      { edit: edit.title, address: formatAddress(address) },
    );
  }
}

function locate(space: AddressSpace, write: EditWrite): LocatedWrite {
  // Words are aligned, so each lies in one frame.
  const { frame, offset } = space.locate(write.address, write.size)[0]!;
  return { frame, offset, old: wordBytes(write.old, write.size), new: wordBytes(write.new, write.size) };
}

function expectWord(draft: Draft, write: EditWrite, value: bigint): void {
  const found = draft.word(write.address, write.size);
  if (found === value) return;
  throw new DomschedError('edit-failed', `${write.what} reads ${found} after ${value} was written`, {
    address: formatAddress(write.address),
  });
}
