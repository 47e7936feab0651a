import { DomschedError } from '../error.ts';
import type { DomainWith, FrameWrite, PauseGuard, PauseProof } from '../hypervisor/types.ts';
import { formatAddress } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import { Draft, wordBytes } from './draft.ts';
import type { Edit, EditWrite } from './edit.ts';

/** A word of an edit where it is in the domain's memory, with what it held and what it becomes. */
export interface LocatedWrite {
  readonly frame: number;
  readonly offset: number;
  readonly old: Uint8Array;
  readonly new: Uint8Array;
}

/** Called when the edit is over: committed, or undone. */
export type AfterCommit = () => void;

/**
 * Called when the edit is checked and before its first byte is written: the place for a durable journal. What it
 * returns is called afterwards, unless the old bytes could not be put back.
 */
export type BeforeCommit = (edit: Edit, writes: readonly LocatedWrite[]) => Promise<AfterCommit | undefined>;

/**
 * Commits a planned edit to a paused domain: either all of its writes are in the guest afterwards and its
 * invariants hold, or the guest is as it was.
 *
 * Every word is written whole and within one frame. Everything the plan looked at is compared once more first,
 * so an edit planned under another pause, or against memory that somebody else changed, is refused. The pause is proved
 * by the hypervisor itself just before the first byte and after the last: somebody else may resume any machine.
 *
 * @throws DomschedError `edit-conflict` when the guest is not as the plan saw it, or runs; `refused` when it is being
 *   moved or stands still by no pause, or when the pause ends with us and the edit is not harmless in parts; `domain-gone`
 *   when it has ended; `guest-inconsistent` when an invariant fails;
 *   `edit-failed` when a write failed, with `details.restored` telling whether the old bytes are back; `edit-torn` when
 *   it did not stand still while the words were written; whatever `journal` throws. In all but `edit-torn` and
 *   `restored: false` the guest is as it was.
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
  // Located before the first write: afterwards nothing but the write itself can fail.
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
  // Between the two proofs nothing waits; should we be killed there, the domain stays paused.
  try {
    guard.keepOnDeath(true, edit.harmlessInParts);
  } catch (error) {
    over?.();
    throw nothingWritten(edit, error);
  }
  // The proof is a moment old by now.
  if (!guard.isQuiet()) {
    guard.keepOnDeath(false);
    over?.();
    const cause = await guard.prove().catch((error: unknown) => error);
    throw nothingWritten(edit, cause instanceof DomschedError ? cause : heard());
  }
  let whole = false;
  const failure = firstError(() => {
    domain.writeFrames.write(writes);
    // Whatever is heard of from here on came after the last byte.
    whole = guard.isQuiet();
    const after = new Draft(space);
    for (const write of edit.writes) expectWord(after, write, write.new);
    for (const invariant of [...edit.invariants, ...edit.outcome]) invariant.check(after);
  });
  // Before anything is taken back: old bytes have no place in a guest that has gone on from the new ones.
  await expectStill(guard, proof, edit, whole && failure === undefined);
  if (failure !== undefined) {
    const failed = restore(domain, space, edit, undo, failure.error);
    // What could not be put back must not run: nobody but an operator can tell what it would do.
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

/** Should we be killed in the middle of it, the guest would go on with a part of it. */
function outlived(domain: DomainWith<'writeFrames'>, edit: Edit): DomschedError {
  const { name } = domain.identity;
  return new DomschedError('refused', `${edit.title}: ${name} ${PAUSE_ENDS}; nothing was written`, {
    edit: edit.title,
  });
}

/** Why an edit has to be harmless in parts, as a clause about a domain. */
export const PAUSE_ENDS =
  'goes on when domsched is killed, in the middle of this edit too, which only parking stands; for all others give it a ' +
  'QMP socket of ours (-qmp unix:/run/domsched/NAME.sock,server=on,wait=off), or a control group of its own, whose freezer ' +
  'outlives domsched';

/** Why an edit was not begun. */
function nothingWritten(edit: Edit, cause: unknown): unknown {
  if (!(cause instanceof DomschedError)) return cause;
  const message = `${edit.title}: ${cause.message}; nothing was written`;
  return new DomschedError(cause.code, message, { ...cause.details, edit: edit.title }, { cause });
}

function heard(): DomschedError {
  return new DomschedError('edit-conflict', 'the hypervisor had more to say of it meanwhile');
}

/**
 * @param whole nothing was heard of it until all was written: that it runs by now does no harm
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
  // It ended with all that was written.
  if (code === 'domain-gone') throw cause;
  // A copy that is being made of it is worse off than the domain itself, and goes on from wherever this one stands.
  if (code !== 'edit-conflict') guard.abandon();
  throw new DomschedError(
    'edit-torn',
    `${edit.title}: THIS EDIT MAY BE TORN: while its ${edit.writes.length} words were written, ` +
      `${cause instanceof Error ? cause.message : String(cause)}; ${ADVICE[code ?? ''] ?? ADVICE.unknown}`,
    { edit: edit.title, restored: false, writes: edit.writes },
    { cause },
  );
}

/** What to do about an edit that may be torn, by the code of what was found. */
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

/** Puts the old bytes back, each by itself so that one failure leaves no other undone, and says how that went. */
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
