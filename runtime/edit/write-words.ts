import { DomschedError } from '../error.ts';
import type { DomainWith, FrameWrite, LocatedWrite, PauseGuard, PauseProof } from '../hypervisor/types.ts';
import type { Edit } from './edit.ts';

/** Called when the edit is over, committed or undone. */
export type AfterCommit = () => void;

/** Why an edit must be harmless in parts, as a clause about a domain. */
export const PAUSE_ENDS =
  'goes on when domsched is killed, in the middle of this edit too, which only parking stands; for all others give it a ' +
  'QMP socket of ours (-qmp unix:/run/domsched/NAME.sock,server=on,wait=off), or a control group of its own, whose freezer ' +
  'outlives domsched';

/** What errors tell of an edit. */
export type WrittenEdit = Pick<Edit, 'title' | 'harmlessInParts'> & { readonly writes: readonly unknown[] };

/** Looks at the words of an edit in the guest. Each throws if they are not as they ought to be. */
export interface WordChecks {
  /** Just before the first byte, under the proved pause, nothing waiting in between. */
  justBefore?(): void;
  /** All new words are there, and whatever else has to be true then. */
  written(): void;
  /** All old words are there. */
  restored(): void;
}

/**
 * Writes located words to a paused domain, all or none, while the hypervisor itself proves the pause just before the
 * first byte and after the last. It knows frames and bytes, and nothing of what they mean to the guest.
 * @param begin records the edit durably. The function that it returns is called afterwards, unless the old bytes could
 *   not be restored.
 * @throws DomschedError as `commit()` in `transaction.ts`
 */
export async function writeWords(
  domain: DomainWith<'writeFrames'>,
  guard: PauseGuard,
  edit: WrittenEdit,
  words: readonly LocatedWrite[],
  begin: () => Promise<AfterCommit | undefined>,
  check: WordChecks,
): Promise<void> {
  const over = await begin();
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
  const differs = firstError(() => check.justBefore?.());
  if (differs !== undefined) {
    guard.keepOnDeath(false);
    over?.();
    throw nothingWritten(edit, differs.error);
  }
  let whole = false;
  const failure = firstError(() => {
    domain.writeFrames.write(words.map((word) => frameWrite(word, word.new)));
    // Any event from here on came after the last byte.
    whole = guard.isQuiet();
    check.written();
  });
  // Check this before restoring anything: old bytes must not go into a guest that has continued from the new ones.
  await expectStill(guard, proof, edit, whole && failure === undefined);
  if (failure !== undefined) {
    const failed = restore(domain, edit, words, check, failure.error);
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

export function firstError(step: () => void): { error: unknown } | undefined {
  try {
    step();
    return undefined;
  } catch (error) {
    return { error };
  }
}

/** The error for an edit that was not begun. */
export function nothingWritten(edit: WrittenEdit, cause: unknown): unknown {
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
async function expectStill(
  guard: PauseGuard,
  before: PauseProof,
  edit: WrittenEdit,
  whole = false,
): Promise<void> {
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

/** Restores the old bytes, word by word so that one failure does not stop the others, and reports how that went. */
function restore(
  domain: DomainWith<'writeFrames'>,
  edit: WrittenEdit,
  words: readonly LocatedWrite[],
  check: WordChecks,
  cause: unknown,
): DomschedError {
  const failures: unknown[] = [];
  for (const word of words.toReversed()) {
    try {
      domain.writeFrames.write([frameWrite(word, word.old)]);
    } catch (error) {
      failures.push(error);
    }
  }
  return notWritten(edit, check, failures, cause);
}

/**
 * The error for an edit that was taken back, if all old words are there again.
 * @param failures what went wrong when they were written
 */
export function notWritten(
  edit: WrittenEdit,
  check: WordChecks,
  failures: unknown[],
  cause: unknown,
): DomschedError {
  const left = firstError(check.restored);
  if (left === undefined) failures.length = 0;
  else failures.push(left.error);
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

function frameWrite({ frame, offset }: LocatedWrite, bytes: Uint8Array): FrameWrite {
  return { frame: frame as FrameWrite['frame'], offset, bytes };
}
