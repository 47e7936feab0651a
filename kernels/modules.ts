import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { type ArchivePackage, download, parseStanzas } from './apt.ts';
import type { CachedKernel } from './cache.ts';
import { KernelsError } from './error.ts';
import { makeOnce } from './make-once.ts';

/**
 * The modules for a virtio disk with an ext4 file system, each after its dependencies. Some are built in, depending on
 * the flavour.
 */
const DISK_MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_blk',
  'crc16',
  'crc32c_generic',
  'mbcache',
  'jbd2',
  'ext4',
];

/** The modules for a virtio network card, likewise. */
const NETWORK_MODULES = [...DISK_MODULES.slice(0, 5), 'failover', 'net_failover', 'virtio_net'];

/** Modules that a guest with a virtio network card must load first, as {@link diskModules}. */
export function networkModules(kernel: CachedKernel): Promise<string[]> {
  return modulesOf(kernel, 'network-modules', NETWORK_MODULES);
}

/**
 * Modules that a guest with a virtio disk must load first, from its kernel's package.
 * @returns files in loading order, without built-in ones
 * @throws KernelsError `download-failed`, also if the cache predates the keeping of modules and the archive has moved
 *   on to another point release
 */
export function diskModules(kernel: CachedKernel): Promise<string[]> {
  return modulesOf(kernel, 'modules', DISK_MODULES);
}

async function modulesOf(kernel: CachedKernel, folder: string, names: readonly string[]): Promise<string[]> {
  const directory = await makeOnce(path.join(kernel.directory, folder), async (fresh) => {
    const deb = await download(await imagePackage(kernel.provenance.packages.image), path.dirname(fresh));
    await takeModules(deb, fresh, names);
  });
  const there = new Set(await readdir(directory));
  return names
    .map((name) => `${name}.ko`)
    .filter((file) => there.has(file))
    .map((file) => path.join(directory, file));
}

/**
 * Extracts modules from a kernel's image package, if it has them.
 * @param directory where `<name>.ko` goes, decompressed; created if missing
 */
export async function takeModules(
  deb: string,
  directory: string,
  names: readonly string[] = DISK_MODULES,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const tree = await mkdtemp(path.join(directory, '..', 'tree-'));
  try {
    // Some file names have a dash where the kernel has an underscore.
    const patterns = names.map((name) => `*/${name.replaceAll('_', '[-_]')}.ko*`);
    // A pattern without a match is a built-in driver and no failure.
    await execa('dpkg-deb', ['--fsys-tarfile', deb], { buffer: false, reject: false }).pipe(
      'tar',
      ['-x', '-f', '-', '-C', tree, '--wildcards', ...patterns],
      { reject: false },
    );
    for (const entry of await readdir(tree, { recursive: true, withFileTypes: true })) {
      const named = /^(.+)\.ko(\.xz|\.zst)?$/.exec(entry.name);
      if (named === null || !entry.isFile()) continue;
      const packed = path.join(entry.parentPath, entry.name);
      if (named[2] === '.xz') await execa('xz', ['--decompress', packed]);
      if (named[2] === '.zst') await execa('zstd', ['--decompress', '--rm', '-q', packed]);
      const plain = packed.slice(0, packed.length - (named[2]?.length ?? 0));
      await rename(plain, path.join(directory, `${named[1]!.replaceAll('-', '_')}.ko`));
    }
  } finally {
    await rm(tree, { recursive: true, force: true });
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
