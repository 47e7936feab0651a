import { DomschedError } from '../error.ts';
import type { DomainWith, FrameWrite, PauseGuard, PauseProof } from '../hypervisor/types.ts';
import { formatAddress } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import { Draft, wordBytes } from './draft.ts';
import type { Edit, EditWrite } from './edit.ts';

/** A word of an edit, located in the domain's memory, with its old and new value. */
export interface LocatedWrite {
  readonly frame: number;
  readonly offset: number;
  readonly old: Uint8Array;
  readonly new: Uint8Array;
}

/** Called when the edit is over, committed or undone. */
export type AfterCommit = () => void;

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
 *   `domain-gone` if it has ended; `guest-inconsistent` if an invariant fails; `edit-failed` if a write failed, with
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
  const before = new Draft(space);
  for (const invariant of edit.invariants) invariant.check(before);
  // Locate before the first write: after that, only the writes themselves can fail.
  const writes = edit.writes.map((write) => frameWrite(space, write, write.new));
  const undo = edit.writes.map((write) => frameWrite(space, write, write.old)).reverse();
  const located = writes.map(({ frame, offset, bytes }, i) => {
    return { frame, offset, old: undo[writes.length - 1 - i]!.bytes, new: bytes };
  });
  const over = await journal(edit, located);
  const proof = await guard.prove().catch((error: unknown) => {
    over?.();
    throw nothingWritten(edit, error);
  });
  // Nothing waits between the two proofs. If we are killed there, the domain stays paused.
  try {
    guard.keepOnDeath(true, edit.harmlessInParts);
  } catch (error) {
    over?.();
    throw nothingWritten(edit, error);
  }
  // The proof is already a moment old.
  if (!guard.isQuiet()) {
    guard.keepOnDeath(false);
    over?.();
    const cause = await guard.prove().catch((error: unknown) => error);
    throw nothingWritten(edit, cause instanceof DomschedError ? cause : heard());
  }
  let whole = false;
  const failure = firstError(() => {
    domain.writeFrames.write(writes);
    // Any event from here on came after the last byte.
    whole = guard.isQuiet();
    const after = new Draft(space);
    for (const write of edit.writes) expectWord(after, write, write.new);
    for (const invariant of [...edit.invariants, ...edit.outcome]) invariant.check(after);
  });
  // Check this before restoring anything: old bytes must not go into a guest that has continued from the new ones.
  await expectStill(guard, proof, edit, whole && failure === undefined);
  if (failure !== undefined) {
    const failed = restore(domain, space, edit, undo, failure.error);
    // A guest with bytes that could not be restored must not run: only an operator can judge what it would do.
    if (!failed.details.restored) guard.abandon();
    else {
      await expectStill(guard, proof, edit);
      guard.keepOnDeath(false);
      over?.();
    }
    throw failed;
  }
  guard.keepOnDeath(false);
  over?.();
}

function firstError(step: () => void): { error: unknown } | undefined {
  try {
    step();
    return undefined;
  } catch (error) {
    return { error };
  }
}

/** Refuses an edit during which our death would let the guest continue with a part of it. */
function outlived(domain: DomainWith<'writeFrames'>, edit: Edit): DomschedError {
  const { name } = domain.identity;
  return new DomschedError('refused', `${edit.title}: ${name} ${PAUSE_ENDS}; nothing was written`, {
    edit: edit.title,
  });
}

/** Why an edit must be harmless in parts, as a clause about a domain. */
export const PAUSE_ENDS =
  'goes on when domsched is killed, in the middle of this edit too, which only parking stands; for all others give it a ' +
  'QMP socket of ours (-qmp unix:/run/domsched/NAME.sock,server=on,wait=off), or a control group of its own, whose freezer ' +
  'outlives domsched';

/** The error for an edit that was not begun. */
function nothingWritten(edit: Edit, cause: unknown): unknown {
  if (!(cause instanceof DomschedError)) return cause;
  const message = `${edit.title}: ${cause.message}; nothing was written`;
  return new DomschedError(cause.code, message, { ...cause.details, edit: edit.title }, { cause });
}

function heard(): DomschedError {
  return new DomschedError('edit-conflict', 'the hypervisor had more to say of it meanwhile');
}

/**
 * @param whole no event arrived until all was written, so the domain may run by now
 * @throws DomschedError `edit-torn` unless the domain has stood still since `before` was proved
 */
async function expectStill(guard: PauseGuard, before: PauseProof, edit: Edit, whole = false): Promise<void> {
  const cause = await guard.prove().then(
    ({ generation, answers }) => {
      if (generation === before.generation && answers === before.answers) return undefined;
      return new DomschedError('refused', 'its memory was migrated, saved or replaced meanwhile');
    },
    (error: unknown) => error,
  );
  if (cause === undefined) return;
  const code = cause instanceof DomschedError ? cause.code : undefined;
  if (whole && code === 'edit-conflict') return;
  // It ended with everything written.
  if (code === 'domain-gone') throw cause;
  // Leave it paused: a copy that is being made of it may be torn worse, and continues from where this one stands.
  if (code !== 'edit-conflict') guard.abandon();
  throw new DomschedError(
    'edit-torn',
    `${edit.title}: THIS EDIT MAY BE TORN: while its ${edit.writes.length} words were written, ` +
      `${cause instanceof Error ? cause.message : String(cause)}; ${ADVICE[code ?? ''] ?? ADVICE.unknown}`,
    { edit: edit.title, restored: false, writes: edit.writes },
    { cause },
  );
}

/** What to do about an edit that may be torn, by error code. */
const ADVICE: Readonly<Record<string, string>> = {
  'edit-conflict': 'watch its console, and reset it or go back to a snapshot at the first sign of trouble',
  refused: 'it stays paused, and is sound itself: throw the copy or snapshot of it away, then resume it',
  unknown: 'if it stands still it may be resumed; if it ran meanwhile, reset it or go back to a snapshot',
};

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

function frameWrite(space: AddressSpace, write: EditWrite, value: bigint): FrameWrite {
  // Words are aligned, so each lies in one frame.
  const { frame, offset } = space.locate(write.address, write.size)[0]!;
  return { frame, offset, bytes: wordBytes(value, write.size) };
}

function expectWord(draft: Draft, write: EditWrite, value: bigint): void {
  const found = draft.word(write.address, write.size);
  if (found === value) return;
  throw new DomschedError('edit-failed', `${write.what} reads ${found} after ${value} was written`, {
    address: formatAddress(write.address),
  });
}

/** Restores the old bytes, word by word so that one failure does not stop the others, and reports how that went. */
function restore(
  domain: DomainWith<'writeFrames'>,
  space: AddressSpace,
  edit: Edit,
  undo: readonly FrameWrite[],
  cause: unknown,
): DomschedError {
  const failures: unknown[] = [];
  for (const write of undo) {
    try {
      domain.writeFrames.write([write]);
    } catch (error) {
      failures.push(error);
    }
  }
  try {
    const after = new Draft(space);
    for (const write of edit.writes) expectWord(after, write, write.old);
    failures.length = 0;
  } catch (error) {
    failures.push(error);
  }
  const restored = failures.length === 0;
  const reason = cause instanceof Error ? cause.message : String(cause);
  const outcome = restored
    ? 'the old bytes are back'
    : 'AND THE OLD BYTES COULD NOT BE PUT BACK: the domain stays paused; destroy it or go back to a snapshot';
  return new DomschedError(
    'edit-failed',
    `${edit.title}: ${reason}; ${outcome}`,
    { edit: edit.title, restored, writes: edit.writes, failures },
    { cause },
  );
}
