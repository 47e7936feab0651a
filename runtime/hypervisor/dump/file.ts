import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs';
import { DomschedError } from '../../error.ts';

/** No dump has headers or notes larger than this. */
const MAX_BLOCK = 64 * 1024 * 1024;

/** Bytes of a dump; every read checks its bounds. */
export abstract class DumpBytes {
  readonly path: string;
  abstract readonly size: number;

  constructor(path: string) {
    this.path = path;
  }

  /** @returns number of bytes read, which is less than asked at the end of the file */
  abstract read(into: Uint8Array, position: number, length: number, offset: number): number;

  /**
   * Reads a piece that must exist.
   * @throws DomschedError `dump-corrupt`
   */
  block(offset: number, length: number, what: string): Buffer {
    if (!Number.isSafeInteger(offset) || offset < 0 || length < 0 || length > MAX_BLOCK)
      this.corrupt(what, offset);
    if (offset + length > this.size) this.corrupt(what, offset);
    const buffer = Buffer.alloc(length);
    if (this.read(buffer, 0, length, offset) !== length) this.corrupt(what, offset);
    return buffer;
  }

  corrupt(what: string, offset: number): never {
    throw new DomschedError(
      'dump-corrupt',
      `${this.path}: ${what} at ${offset} is cut off or malformed; take the dump again, and look at it when it is ` +
        'written to its end',
      { path: this.path, what, offset },
    );
  }

  unsupported(format: string, advice: string): never {
    throw new DomschedError('dump-unsupported', `${this.path} is ${format}; ${advice}`, {
      path: this.path,
      format,
    });
  }
}

export class DumpFile extends DumpBytes {
  readonly size: number;
  readonly #fd: number;
  #open = true;

  /** @throws DomschedError `host-unreachable` when it cannot be opened or is not a file */
  constructor(path: string) {
    super(path);
    try {
      // O_NONBLOCK, because opening a FIFO would wait for a writer.
      this.#fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    } catch (cause) {
      throw unreachable(path, `cannot be opened: ${explain(cause)}`, cause);
    }
    const stat = fstatSync(this.#fd);
    const problem = stat.isFile() ? (stat.size === 0 ? 'is empty: take the dump again' : '') : kindOf(stat);
    if (problem !== '') {
      closeSync(this.#fd);
      throw unreachable(path, problem);
    }
    this.size = stat.size;
  }

  read(into: Uint8Array, position: number, length: number, offset: number): number {
    if (!this.#open) throw new DomschedError('domain-gone', `${this.path} was closed`, { path: this.path });
    try {
      // One system call may read less, and not only at the end: from 9p with O_NONBLOCK it reads what one message holds.
      let done = 0;
      while (done < length) {
        const count = readSync(this.#fd, into, position + done, length - done, offset + done);
        if (count === 0) break;
        done += count;
      }
      return done;
    } catch (cause) {
      throw unreachable(this.path, `cannot be read: ${explain(cause)}`, cause);
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
  }
}

function unreachable(path: string, why: string, cause?: unknown): DomschedError {
  return new DomschedError('host-unreachable', `dump ${path} ${why}`, { path }, { cause });
}

function kindOf(stat: Stats): string {
  if (stat.isDirectory()) return 'is a directory: name the file in it that is the dump';
  const kind = stat.isFIFO() ? 'a pipe' : 'a device';
  return `is ${kind}: a dump is read here and there, so copy it into a file and name that`;
}

function explain(cause: unknown): string {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'there is no such file';
  if (code === 'EACCES' || code === 'EPERM')
    return 'permission denied; dumps that QEMU writes are for its own user: run as root or as that user';
  if (code === 'ENXIO') return 'it is a socket; a dump is a file, a socket of QEMU goes as qemu:unix:PATH';
  return code ?? String(cause);
}
