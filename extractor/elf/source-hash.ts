import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { FileSource } from './byte-source.ts';

const CHUNK = 1 << 20;
/** Signal handlers get a turn after this many chunks. */
const TURN = 64;

/**
 * SHA-256 of a whole file, in hex, like sha256sum.
 *
 * @throws ExtractError `file-unreadable`; the signal's reason
 */
export async function hashFile(source: FileSource, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for (let chunk = 0; chunk * CHUNK < source.size; chunk++) {
    if (chunk % TURN === TURN - 1) await setImmediate();
    signal?.throwIfAborted();
    hash.update(source.read(chunk * CHUNK, Math.min(CHUNK, source.size - chunk * CHUNK)));
  }
  return hash.digest('hex');
}
