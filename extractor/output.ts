import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import process from 'node:process';
import { ExtractError } from './error.ts';

/** Long texts are encoded and written in pieces of this many characters. */
const PIECE = 1 << 20;

/**
 * Writes a text to `path`, or to standard output for `-`. A file appears completely or not at all, because it is
 * written beside its place and renamed. A device or pipe is written directly.
 *
 * @throws ExtractError `no-space`, `output-failed`
 */
export async function writeText(path: string, text: string): Promise<void> {
  if (path === '-') return writeStandardOutput(text);
  const target = realTarget(path);
  if (!target.regular) {
    return attempt(path, () => {
      const fd = openSync(target.path, 'w');
      writeAndClose(fd, text, false);
    });
  }
  // Process ids repeat, in a container with every start: a file left by a killed process must not be in the way.
  const temporary = join(
    dirname(target.path),
    `.${basename(target.path)}.${randomBytes(8).toString('hex')}.tmp`,
  );
  let written = false;
  try {
    attempt(path, () => {
      const fd = openSync(temporary, 'wx', target.mode);
      written = true;
      writeAndClose(fd, text, true);
      renameSync(temporary, target.path);
      written = false;
    });
  } finally {
    if (written) rmSync(temporary, { force: true });
  }
}

/** Resolves a path: links are kept and their target is replaced. */
function realTarget(path: string): { path: string; regular: boolean; mode: number } {
  try {
    const real = realpathSync(path);
    const status = statSync(real);
    if (status.isDirectory()) {
      throw new ExtractError('output-failed', `${path} is a directory; name a file in it`, { path });
    }
    return { path: real, regular: status.isFile(), mode: status.mode & 0o777 };
  } catch (error) {
    if (error instanceof ExtractError) throw error;
    return { path, regular: true, mode: 0o666 };
  }
}

/** Synchronous on purpose, so that no signal handler runs between the first byte and the rename. */
function writeAndClose(fd: number, text: string, durable: boolean): void {
  try {
    for (let start = 0; start < text.length; ) {
      let end = Math.min(start + PIECE, text.length);
      // Do not cut between the halves of a surrogate pair.
      if (end < text.length && /[\ud800-\udbff]/.test(text[end - 1]!)) end--;
      const bytes = Buffer.from(text.slice(start, end), 'utf8');
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
      start = end;
    }
    if (durable) fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function writeStandardOutput(text: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const failed = (error: Error) => reject(outputError(error, 'standard output'));
  process.stdout.once('error', failed);
  process.stdout.write(text, (error) => {
    if (error) return failed(error);
    process.stdout.off('error', failed);
    resolve();
  });
  return promise;
}

function attempt(path: string, write: () => void): void {
  try {
    write();
  } catch (error) {
    throw outputError(error, path);
  }
}

function outputError(error: unknown, path: string): ExtractError {
  const errno = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
  const details = { path, errno };
  const cause = { cause: error };
  switch (errno) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return new ExtractError(
        'no-space',
        `no space left to write ${path}; free some and run again`,
        details,
        cause,
      );
    case 'ENOENT':
      return new ExtractError(
        'output-failed',
        `${path} cannot be written: its folder does not exist`,
        details,
        cause,
      );
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new ExtractError('output-failed', `${path} may not be written by this user`, details, cause);
    case 'EPIPE':
      return new ExtractError('output-failed', 'nobody reads standard output any more', details, cause);
    default:
      return new ExtractError('output-failed', `${path} cannot be written (${errno})`, details, cause);
  }
}
