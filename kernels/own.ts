/**
 * `node kernels/own.ts [NAME…]` builds kernels of our own configurations (`own/*.config`) from Debian's source package into
 * `.cache/own/`, which looks like `.cache/suites/`: with DOMSCHED_SUITES_CACHE=.cache/own the trial of Debian's kernels tries
 * these. What Debian's configurations have in common is not all that a kernel can be. A build takes some 15 minutes of CPU
 * time; it goes on where it was interrupted.
 */
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { download, show } from './apt.ts';
import { KernelsError } from './error.ts';
import { makeOnce } from './make-once.ts';
import { projectDirectory } from './paths.ts';
import type { SuiteProvenance } from './suites.ts';

/** The source whose series this project's own Debian has too. */
const SOURCE = 'linux-source-6.12';
const OWN: readonly string[] = ['no-groups', 'small'];

const cache = path.join(projectDirectory, '.cache', 'own');
const configs = path.join(projectDirectory, 'kernels', 'own');

/** Unpacks the source once for each version. @throws KernelsError `package-not-found` */
async function source(): Promise<{ tree: string; version: string; sha256: string }> {
  const found = (await show([SOURCE])).get(SOURCE);
  if (found === undefined)
    throw new KernelsError('package-not-found', `apt knows no ${SOURCE}: run \`apt-get update\``);
  const tree = await makeOnce(path.join(cache, 'source', found.version), async (fresh) => {
    const deb = await download(found, path.join(cache, 'download'));
    await mkdir(fresh);
    const member = `./usr/src/${SOURCE}.tar.xz`;
    await execa({ shell: '/bin/bash' })`set -o pipefail
      dpkg-deb --fsys-tarfile ${deb} | tar -xO ${member} | tar -xJ --strip-components=1 -C ${fresh}`;
    await rm(deb);
  });
  return { tree, version: found.version, sha256: found.sha256 };
}

/** @returns the kernel's release */
async function build(name: string): Promise<string> {
  const { tree, version, sha256 } = await source();
  const output = path.join(cache, 'build', name);
  await mkdir(output, { recursive: true });
  const parts = ['base', 'usual', name].map((part) => readFile(path.join(configs, `${part}.config`), 'utf8'));
  const wanted = path.join(output, 'wanted.config');
  // Of two lines for one option the last one counts.
  const release = `CONFIG_LOCALVERSION="-own-${name}"\n`;
  await writeFile(wanted, (await Promise.all(parts)).join('') + release);
  const make = (...what: readonly string[]) =>
    execa('nice', ['-n', '10', 'make', '-s', `O=${output}`, ...what], { cwd: tree, stdout: 'ignore' });
  await make(`KCONFIG_ALLCONFIG=${wanted}`, 'allnoconfig');
  await make(`-j${availableParallelism()}`, 'bzImage');
  const built = (await readFile(path.join(output, 'include/config/kernel.release'), 'utf8')).trim();
  const incoming = path.join(cache, 'incoming');
  await rm(incoming, { recursive: true, force: true });
  await mkdir(incoming, { recursive: true });
  await copyFile(path.join(output, 'arch/x86/boot/bzImage'), path.join(incoming, 'vmlinuz'));
  const config = await readFile(path.join(output, '.config'), 'utf8');
  if (!/^CONFIG_DEBUG_INFO_BTF=y$/m.test(config))
    await copyFile(path.join(output, 'vmlinux'), path.join(incoming, 'vmlinux'));
  const provenance: SuiteProvenance = {
    release: built,
    suite: 'own',
    package: { name: SOURCE, version, sha256 },
  };
  await writeFile(path.join(incoming, 'provenance.json'), `${JSON.stringify(provenance, null, 2)}\n`);
  const folder = path.join(cache, 'kernels', built);
  await rm(folder, { recursive: true, force: true });
  await mkdir(path.dirname(folder), { recursive: true });
  await rename(incoming, folder);
  return built;
}

const { positionals } = parseArgs({ allowPositionals: true });
for (const name of positionals.length > 0 ? positionals : OWN) {
  if (!OWN.includes(name)) throw new KernelsError('kernel-absent', `${name} is none of ${OWN.join(', ')}`);
  console.log(`${await build(name)}: built`);
}
