import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { ExtractError } from '../error.ts';

/** One `pread` transfers at most 2^31 − 4096 bytes on Linux (read(2), NOTES); longer reads take several. */
const MAX_TRANSFER = 0x7fff_f000;

/** Limit of a single read, whatever a header claims: 2 GiB. */
const MAX_READ = 2 ** 31;

/** Random access to a file's bytes; holds only what was requested. */
export class FileSource implements Disposable {
  /** Names the file in messages. */
  readonly path: string;
  /** Path by which others can open the bytes while this is open. */
  readonly location: string;
  readonly size: number;
  #fd: number | null;

  constructor(path: string, fd: number, size: number, location = path) {
    this.path = path;
    this.location = location;
    this.#fd = fd;
    this.size = size;
  }

  /**
   * Opens a regular file for reading.
   * @throws ExtractError `file-not-found`, `file-unreadable` (directory, device, pipe, permission)
   */
  static open(path: string): FileSource {
    let fd: number | undefined;
    try {
      // Ask before opening, because opening a device can have effects and a pipe without writer would block.
      const kind = statSync(path);
      if (kind.isDirectory()) {
        throw new ExtractError('file-unreadable', `${path} is a directory; give a kernel file in it`, {
          path,
        });
      }
      if (!kind.isFile()) {
        throw new ExtractError('file-unreadable', `${path} is not a regular file; copy its bytes to one`, {
          path,
        });
      }
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      return new FileSource(path, fd, fstatSync(fd).size);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      throw fileError(error, path);
    }
  }

  get fd(): number {
    if (this.#fd === null) {
      throw new ExtractError('file-unreadable', `${this.path} was closed before this read`, {
        path: this.path,
      });
    }
    return this.#fd;
  }

  /**
   * Reads `length` bytes from byte `offset` into a new buffer or the start of `target`.
   * @throws ExtractError `truncated` if the file ends before, `file-unreadable` if the disk fails
   */
  read(offset: number, length: number, target?: Uint8Array): Buffer {
    if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(length) || length < 0) {
      throw new ExtractError('corrupt-elf', `${this.path}: no bytes at ${offset} + ${length}`, {
        path: this.path,
        offset,
        length,
      });
    }
    if (offset + length > this.size) throw this.#truncated(offset, length, this.size);
    if (length > MAX_READ) {
      throw new ExtractError(
        'corrupt-elf',
        `${this.path}: a table of ${length} bytes at ${offset} is beyond any kernel's; check the file`,
        { path: this.path, offset, length },
      );
    }
    const buffer = target
      ? Buffer.from(target.buffer, target.byteOffset, length)
      : Buffer.allocUnsafeSlow(length);
    let done = 0;
    while (done < length) {
      let count: number;
      try {
        count = readSync(this.fd, buffer, done, Math.min(length - done, MAX_TRANSFER), offset + done);
      } catch (error) {
        throw fileError(error, this.path);
      }
      if (count === 0) throw this.#truncated(offset, length, offset + done);
      done += count;
    }
    return buffer;
  }

  /** All bytes, up to `bound`, of a file without a known size, as in `/proc`. */
  readToEnd(bound: number): Buffer {
    const pieces: Buffer[] = [];
    let size = 0;
    try {
      for (;;) {
        const piece = Buffer.allocUnsafeSlow(64 << 10);
        const count = readSync(this.fd, piece, 0, piece.length, size);
        if (count === 0) return Buffer.concat(pieces, size);
        pieces.push(piece.subarray(0, count));
        size += count;
        if (size > bound) {
          throw new ExtractError('file-unreadable', `${this.path} does not end after ${bound} bytes`, {
            path: this.path,
            bound,
          });
        }
      }
    } catch (error) {
      throw fileError(error, this.path);
    }
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #truncated(offset: number, length: number, end: number): ExtractError {
    return new ExtractError(
      'truncated',
      `${this.path} ends at byte ${end}, but ${length} bytes are expected at ${offset}; fetch or copy it again`,
      { path: this.path, offset, length, size: end },
    );
  }
}

/** Converts an operating-system error about a file to ours; passes our own errors through. */
export function fileError(error: unknown, path: string): ExtractError {
  if (error instanceof ExtractError) return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
  const details = { path, errno: code };
  const cause = { cause: error };
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new ExtractError('file-not-found', `${path} does not exist`, details, cause);
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return new ExtractError(
        'no-space',
        `no space left to write ${path}; free some, or set TMPDIR to a bigger place`,
        details,
        cause,
      );
    case 'EACCES':
    case 'EPERM':
      return new ExtractError('file-unreadable', `${path} may not be read by this user`, details, cause);
    default:
      return new ExtractError('file-unreadable', `${path} cannot be read (${code})`, details, cause);
  }
}

/** The same bytes as a Buffer, not copied. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
