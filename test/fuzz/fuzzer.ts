import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';
import { suitePackages } from '../../kernels/suite-packages.ts';

const require = createRequire(import.meta.url);
/** The C library that Jazzer.js's addon is linked with, and the Debian release that has it. */
const NEEDED_GLIBC = [2, 38] as const;
const SUITE = 'trixie';
const PACKAGES = ['libc6', 'libstdc++6', 'libgcc-s1'];

/**
 * What starts the fuzzer. On a machine with an older C library than its addon wants, Node runs with the libraries of a
 * newer Debian, unpacked into the cache; nothing is installed.
 */
export async function fuzzerCommand(): Promise<string[]> {
  const cli = path.join(path.dirname(require.resolve('@jazzer.js/core')), 'cli.js');
  if (hasGlibc()) return [process.execPath, cli];
  const root = await suitePackages(SUITE, PACKAGES);
  const libraries = path.join(root, 'usr/lib/x86_64-linux-gnu');
  return [path.join(libraries, 'ld-linux-x86-64.so.2'), '--library-path', libraries, process.execPath, cli];
}

function hasGlibc(): boolean {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  const [major = 0, minor = 0] = (header.glibcVersionRuntime ?? '').split('.').map(Number);
  return major > NEEDED_GLIBC[0] || (major === NEEDED_GLIBC[0] && minor >= NEEDED_GLIBC[1]);
}
