import { closeSync, constants, openSync } from 'node:fs';
import path from 'node:path';
import koffi from 'koffi';
import { DomschedError } from '../error.ts';
import { makePrivate } from '../runtime-directory.ts';

const LOCK_EXCLUSIVE_NOW = 2 | 4;
const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
const flock = koffi.load('libc.so.6').func('int flock(int fd, int operation)');

/**
 * A file that one process at a time has locked. The kernel drops the lock when that process ends in any way. The file
 * stays, so that two processes never lock two different files of one name.
 */
export class FileLock {
  #descriptor: number;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** @returns undefined when another process has it @throws DomschedError `refused`, `host-unreachable` */
  static take(file: string): FileLock | undefined {
    let descriptor: number;
    try {
      makePrivate(path.dirname(file));
      descriptor = openSync(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    } catch (cause) {
      if (cause instanceof DomschedError) throw cause;
      const message = `${file} cannot be locked: ${(cause as Error).message}`;
      throw new DomschedError('host-unreachable', message, { path: file }, { cause });
    }
    if (flock(descriptor, LOCK_EXCLUSIVE_NOW) === 0) return new FileLock(descriptor);
    closeSync(descriptor);
    return undefined;
  }

  /** A second call does nothing. */
  release(): void {
    if (this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
  }
}
