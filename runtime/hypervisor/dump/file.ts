import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { DomschedError } from '../../error.ts';

/** Headers and notes bigger than this are no dump's. */
const MAX_BLOCK = 64 * 1024 * 1024;

/** A dump file: reads with every bound checked. */
export class DumpFile {
  readonly path: string;
  readonly size: number;
  readonly #fd: number;
  #open = true;

  /** @throws DomschedError `host-unreachable` when it cannot be opened */
  constructor(path: string) {
    this.path = path;
    try {
      this.#fd = openSync(path, 'r');
    } catch (cause) {
      const message = `cannot open dump ${path}: ${(cause as NodeJS.ErrnoException).code}`;
      throw new DomschedError('host-unreachable', message, { path }, { cause });
    }
    this.size = fstatSync(this.#fd).size;
  }

  /**
   * A piece of the file that has to be there.
   * @throws DomschedError `dump-corrupt`
   */
  block(offset: number, length: number, what: string): Buffer {
    if (!Number.isSafeInteger(offset) || offset < 0 || length < 0 || length > MAX_BLOCK)
      this.corrupt(what, offset);
    const buffer = Buffer.alloc(length);
    if (offset + length > this.size || this.read(buffer, 0, length, offset) !== length)
      this.corrupt(what, offset);
    return buffer;
  }

  /** @returns bytes read: fewer than asked at the end of the file */
  read(into: Uint8Array, position: number, length: number, offset: number): number {
    if (!this.#open) throw new DomschedError('domain-gone', `${this.path} was closed`, { path: this.path });
    return readSync(this.#fd, into, position, length, offset);
  }

  corrupt(what: string, offset: number): never {
    throw new DomschedError(
      'dump-corrupt',
      `${this.path}: ${what} at ${offset} is cut off or malformed; take the dump again`,
      {
        path: this.path,
        what,
        offset,
      },
    );
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
  }
}
