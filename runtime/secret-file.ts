import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import process from 'node:process';
import { DomschedError } from './error.ts';
import { shellWord } from './shell-word.ts';

const LONGEST_FILE = 4_096;

/**
 * Reads a file with a secret that only its owner may read.
 * @param key of the configuration that names it, for messages
 * @param advice what to do if there is none
 * @throws DomschedError `config-invalid` for a file that others may read or write, or that is no small file
 */
export function readSecret(key: string, file: string, advice?: string): string {
  const bad = (why: string, cause?: unknown) =>
    new DomschedError('config-invalid', `${key} ${file} ${why}`, { file }, { cause });
  let descriptor: number;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    const what = advice === undefined ? '' : `; ${advice}`;
    throw bad(`cannot be read: ${(cause as Error).message}${what}`, cause);
  }
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isFile() || stat.size > LONGEST_FILE) throw bad('is no file with a secret');
    const owner = process.getuid?.();
    if ((stat.mode & 0o077) !== 0 || (stat.uid !== owner && stat.uid !== 0)) {
      throw bad(
        `can be read by others; chmod 600 ${shellWord(file)}, and have it belong to whoever runs the daemon`,
      );
    }
    return readFileSync(descriptor, 'utf8').trim();
  } finally {
    closeSync(descriptor);
  }
}
