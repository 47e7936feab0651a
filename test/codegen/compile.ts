import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import process from 'node:process';
import type { ExecutionContext } from 'ava';
import { execa } from 'execa';

const ROOT = resolve(import.meta.dirname, '../..');

/** Compiles all modules of a folder with the compiler and the options of this project; fails at the first complaint. */
export async function compile(t: ExecutionContext, folder: string): Promise<void> {
  const config = {
    extends: join(ROOT, 'tsconfig.json'),
    compilerOptions: { typeRoots: [join(ROOT, 'node_modules/@types')] },
    include: ['.'],
    exclude: [],
  };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
  await writeFile(join(folder, 'package.json'), '{"type":"module"}');
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  const { exitCode, stdout } = await execa(process.execPath, [tsc, '-p', folder], { reject: false });
  t.is(stdout, '');
  t.is(exitCode, 0);
}
