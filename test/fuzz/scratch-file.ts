import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';

/** In memory where there is such a place: a disk is slower than the readers. */
const BASE = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

let folder: string | undefined;

/** A folder of this process's own, gone with it. */
export function scratchFolder(): string {
  if (folder === undefined) {
    const made = mkdtempSync(path.join(BASE, 'domsched-fuzz-'));
    process.once('exit', () => rmSync(made, { recursive: true, force: true }));
    folder = made;
  }
  return folder;
}

/** The input as a file, for what reads files: one path for all inputs of a target. */
export function scratchFile(name: string, bytes: Uint8Array): string {
  const file = path.join(scratchFolder(), name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, bytes);
  return file;
}
