import { closeSync, fsyncSync, openSync, writeFileSync } from 'node:fs';

/**
 * Writes a file for root alone, and returns when its bytes are on the disk. Whether its name is there too after a loss of
 * power is a matter of its directory.
 * @param flags `w` for a file of this text alone, `r+` to write over what an existing one begins with
 */
export function writeDurably(file: string, flags: 'w' | 'r+', text: string): void {
  const handle = openSync(file, flags, 0o600);
  try {
    // As a whole: a single write on a full disk may take a part of it and report no error.
    writeFileSync(handle, text);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
