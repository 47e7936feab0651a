import { randomBytes } from 'node:crypto';
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { FileSource, fileError } from './byte-source.ts';

/**
 * A private file without a name: it is unlinked as soon as it is open, so nothing is left behind however the process
 * ends, even by a signal. Other programs reach it through `/proc` (see {@link FileSource.location}).
 */
export class TemporaryFile implements Disposable {
  readonly #path: string;
  #fd: number | null;
  #size = 0;

  /** @throws ExtractError `no-space`; `file-unreadable` if the temporary directory is not writable */
  constructor(directory = tmpdir()) {
    this.#path = join(directory, `domsched-${process.pid}-${randomBytes(8).toString('hex')}`);
    try {
      this.#fd = openSync(this.#path, 'wx+', 0o600);
      unlinkSync(this.#path);
    } catch (error) {
      throw fileError(error, this.#path);
    }
  }

  get size(): number {
    return this.#size;
  }

  /** @throws ExtractError `no-space` */
  append(bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#fd!, bytes, done, bytes.length - done, this.#size + done);
      }
    } catch (error) {
      throw fileError(error, this.#path);
    }
    this.#size += bytes.length;
  }

  /** Passes the bytes on for reading; `path` names them in messages. The caller closes the source. */
  toSource(path: string): FileSource {
    const fd = this.#fd!;
    this.#fd = null;
    return new FileSource(path, fd, this.#size, `/proc/${process.pid}/fd/${fd}`);
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }
}
