/** `node partly-written.ts DIRECTORY`: writes more than its limit on the size of files lets it, and prints what failed. */
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { EditLog } from '../../../runtime/edit/log.ts';
import { writePrivate } from '../../../runtime/runtime-directory.ts';

const directory = process.argv[2]!;
const file = path.join(directory, 'file');
const long = 'x'.repeat(100_000);

/** @returns the code of what it throws */
function codeOf(write: () => unknown): string {
  try {
    write();
    return 'none';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

mkdirSync(directory, { mode: 0o700 });
const handle = openSync(file, 'w');
// The trap itself: one write that takes a part, and no error.
const written = writeSync(handle, long);
closeSync(handle);
const plain = codeOf(() => writePrivate(file, long));
rmSync(file);
const reserve = codeOf(() => new EditLog(directory).reserve());
console.log(JSON.stringify({ plain, reserve, written }));
