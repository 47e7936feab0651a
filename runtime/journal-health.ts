import { rmSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { DomschedError } from './error.ts';
import { makePrivate, writePrivate } from './runtime-directory.ts';

/** More than all that one hold writes down: when so much fits again, holds go on for a while. */
const PROBE_BYTES = 256 * 1024;

/** What an operator can do about it, by errno. */
const ADVICE: Readonly<Record<string, string>> = {
  ENOSPC: 'make room there',
  EDQUOT: 'make room there, or raise the quota',
  EFBIG: 'raise the limit on the size of files',
  EROFS: 'have its file system writable',
  EIO: 'its disk fails, and the kernel log of this host says more',
  EACCES: 'run as its owner',
  EPERM: 'run as its owner',
};

/**
 * A failure of the file system on which we write down what we do to guests.
 * @param what happened to which file, as the beginning of a sentence
 */
export function journalFailed(place: string, what: string, cause: unknown): DomschedError {
  if (cause instanceof DomschedError) return cause;
  const { code = '', message } = cause as NodeJS.ErrnoException;
  const advice = ADVICE[code] ?? 'see to it';
  return new DomschedError(
    'journal-failed',
    `${what} (${message}): ${advice}, or choose another place with DOMSCHED_RUNTIME_DIR`,
    // Not `errno`, which tells of a domain's socket.
    { path: place, reason: code || 'unknown' },
    { cause },
  );
}

/** Whether what we do to guests can be written down. All who write to one run-time directory share it. */
export class JournalHealth {
  readonly #failures = new Map<string, DomschedError>();

  /** Why nothing can be held or changed now; undefined if the last record could be written. */
  get failure(): DomschedError | undefined {
    return this.#failures.values().next().value;
  }

  /** Has an operator's attention drawn to a failure that {@link failed} did not see. */
  tell(error: DomschedError): void {
    this.#failures.set(String(error.details.path), error);
  }

  /** Tries the places where writing failed. */
  probe(): void {
    for (const place of this.#failures.keys()) {
      const file = path.join(place, `${process.pid}.probe`);
      try {
        makePrivate(place);
        writePrivate(file, ' '.repeat(PROBE_BYTES));
        this.works(place);
      } catch {
        // As before.
      }
      try {
        rmSync(file, { force: true });
      } catch {
        // It is empty, or the disk fails.
      }
    }
  }

  /** A record could be written there. */
  works(place: string): void {
    this.#failures.delete(place);
  }

  /** A record could not be written there. @returns the error to throw */
  failed(place: string, cause: unknown): DomschedError {
    const what = `${place} cannot be written, and nothing is changed that cannot be written down first`;
    const error = journalFailed(place, what, cause);
    this.#failures.set(place, error);
    return error;
  }
}
