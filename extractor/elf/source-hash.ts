import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { FileSource } from './byte-source.ts';

const CHUNK = 1 << 20;
/** After so many chunks the signal handlers of the program have their turn. */
const TURN = 64;

/**
 * SHA-256 of a whole file, in hex, as sha256sum prints it.
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
