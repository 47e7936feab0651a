import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';

/**
 * Says on disk who paused a machine last, so that the watchdog of a process that died long ago does not resume what
 * somebody else has paused since.
 */
function markOf(socket: string): string {
  const root = process.getuid?.() === 0;
  const base = root
    ? '/run'
    : (process.env.XDG_RUNTIME_DIR ?? path.join(tmpdir(), `user-${process.getuid?.()}`));
  const name = createHash('sha256').update(socket).digest('hex').slice(0, 32);
  return path.join(base, 'domsched', 'pauses', name);
}

/** @param owner whoever is about to pause the machine behind `socket` */
export function markPause(socket: string, owner: string): void {
  const mark = markOf(socket);
  try {
    writeFileSync(mark, owner, { mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    mkdirSync(path.dirname(mark), { recursive: true, mode: 0o700 });
    writeFileSync(mark, owner, { mode: 0o600 });
  }
}

/** Takes the mark away, if it is still the owner's: the machine runs again. */
export function unmarkPause(socket: string, owner: string): void {
  if (isMarkedBy(socket, owner)) rmSync(markOf(socket), { force: true });
}

/** Whether a process of ours paused the machine and did not resume it. */
export function isMarked(socket: string): boolean {
  return existsSync(markOf(socket));
}

/** Whether nobody has paused the machine since `owner` did. */
export function isMarkedBy(socket: string, owner: string): boolean {
  try {
    return readFileSync(markOf(socket), 'utf8') === owner;
  } catch {
    return false;
  }
}
