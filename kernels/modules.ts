import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { type ArchivePackage, download, parseStanzas } from './apt.ts';
import { cachedKernel } from './cache.ts';
import { KernelsError } from './error.ts';
import { kernelCache } from './paths.ts';

/**
 * Takes kernel modules out of a cached kernel's image package, for guests that need some. Dependencies between
 * modules are the caller's to know.
 * @param release `uname -r` of a kernel in the cache
 * @param names module names without `.ko`, e.g. `virtio_net`
 * @param directory where `<name>.ko` goes, decompressed; created when missing
 * @returns paths in the order of `names`
 * @throws KernelsError `kernel-absent`, `module-not-found` (also for modules built into the kernel),
 *   `download-failed` (also when the archive has moved on to another point release)
 */
export async function extractModules(
  release: string,
  names: readonly string[],
  directory: string,
): Promise<string[]> {
  const kernel = cachedKernel(release);
  if (!kernel) {
    throw new KernelsError(
      'kernel-absent',
      `${release} is not in ${kernelCache}: run \`make kernels-debian\``,
      {
        release,
      },
    );
  }
  await mkdir(directory, { recursive: true });
  const temporary = await mkdtemp(path.join(kernelCache, 'modules-'));
  try {
    const deb = await download(await imagePackage(kernel.provenance.packages.image), temporary);
    const modules = path.join(temporary, 'lib');
    // File names spell some modules with a dash where the kernel says underscore.
    const patterns = names.map((name) => `*/${name.replaceAll(/[-_]/g, '[-_]')}.ko*`);
    // Plain files only: a pattern that matches nothing is reported below, by name.
    await execa('dpkg-deb', ['--fsys-tarfile', deb], { buffer: false, reject: false }).pipe(
      'tar',
      ['-x', '-f', '-', '-C', temporary, '--wildcards', ...patterns],
      { reject: false },
    );
    const files = await readdir(modules, { recursive: true }).catch(() => [] as string[]);
    return await Promise.all(
      names.map(async (name) => {
        const wanted = new RegExp(`(^|/)${name.replaceAll(/[-_]/g, '[-_]')}\\.ko(\\.xz|\\.zst)?$`);
        const file = files.find((candidate) => wanted.test(candidate));
        if (!file) {
          throw new KernelsError(
            'module-not-found',
            `${release} has no module ${name}: perhaps it is built in (look for it in ${kernel.config})`,
            { release, module: name },
          );
        }
        const target = path.join(directory, `${name}.ko`);
        if (file.endsWith('.xz')) await execa('xz', ['--decompress', path.join(modules, file)]);
        if (file.endsWith('.zst'))
          await execa('zstd', ['--decompress', '--rm', '-q', path.join(modules, file)]);
        await rename(path.join(modules, file.replace(/\.(xz|zst)$/, '')), target);
        return target;
      }),
    );
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function imagePackage({ name, version }: { name: string; version: string }): Promise<ArchivePackage> {
  const { stdout } = await execa('apt-cache', ['show', `${name}=${version}`], { reject: false });
  const found = parseStanzas(stdout).get(name);
  if (found) return found;
  throw new KernelsError(
    'download-failed',
    `the archive no longer has ${name} ${version}: run \`make kernels-debian\` to move to the current release`,
    { package: name, version },
  );
}
