import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { scratchFolder } from '../fixture.ts';

/** Every form of DWARF that two compilers make. */
export const FORMS: readonly { name: string; compiler: string; flags: string[]; version: number }[] = [
  ...[2, 3, 4, 5].flatMap((version) => [
    { name: `gcc, DWARF ${version}`, compiler: 'gcc', flags: [`-gdwarf-${version}`], version },
    {
      name: `gcc, DWARF ${version} strict`,
      compiler: 'gcc',
      flags: [`-gdwarf-${version}`, '-gstrict-dwarf'],
      version,
    },
    { name: `clang, DWARF ${version}`, compiler: 'clang-14', flags: [`-gdwarf-${version}`], version },
  ]),
  {
    name: 'gcc, DWARF 4 type units',
    compiler: 'gcc',
    flags: ['-gdwarf-4', '-fdebug-types-section'],
    version: 4,
  },
  {
    name: 'gcc, DWARF 5 type units',
    compiler: 'gcc',
    flags: ['-gdwarf-5', '-fdebug-types-section'],
    version: 5,
  },
  { name: 'gcc, 64-bit DWARF 5', compiler: 'gcc', flags: ['-gdwarf-5', '-gdwarf64'], version: 5 },
];

/** Compiles and links sources, given by file name, to a program with debug information. @returns its path */
export function program(
  t: ExecutionContext,
  sources: Readonly<Record<string, string>>,
  flags: readonly string[] = ['-g'],
  compiler = 'gcc',
): string {
  const folder = scratchFolder(t);
  const names = Object.keys(sources);
  for (const name of names) {
    mkdirSync(join(folder, dirname(name)), { recursive: true });
    writeFileSync(join(folder, name), sources[name]!);
  }
  const output = join(folder, 'program');
  execFileSync(compiler, ['-w', '-std=gnu11', ...flags, ...names, '-o', output], {
    cwd: folder,
    stdio: 'pipe',
  });
  return output;
}
