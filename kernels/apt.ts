import { statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import type { Package } from './cache.ts';
import { KernelsError } from './error.ts';
import { type DebianKernel, forRelease, isReleaseOf } from './manifest.ts';

/** A package as the archive offers it now. */
export interface ArchivePackage extends Package {
  /** Bytes of the .deb. */
  size: number;
  /** Names of the packages that it depends on; only the first of alternatives. */
  depends: readonly string[];
}

/** Options that make apt use another archive than the machine's; empty for the machine's own. */
export type AptOptions = readonly string[];

/** The newest point release of a kernel for which the archive has both packages. */
export interface ArchiveKernel {
  release: string;
  image: ArchivePackage;
  debug: ArchivePackage;
}

/**
 * Resolves a kernel to the archive's newest point release, through apt's index. Never a fixed version, because Debian
 * removes old point releases.
 * @throws KernelsError `package-not-found`
 */
export async function resolve(kernel: DebianKernel): Promise<ArchiveKernel> {
  const known = await execa('apt-cache', ['pkgnames', `linux-image-${kernel.series}`], { reject: false });
  if (known.code === 'ENOENT') {
    throw new KernelsError(
      'package-not-found',
      "there is no apt on this machine, and these kernels come from Debian's archive; `npm run extract` reads any other",
      { kernel: kernel.id },
    );
  }
  const releases = known.stdout
    .split('\n')
    .map((name) => name.replace(/^linux-image-/, ''))
    .filter((release) => isReleaseOf(kernel, release));
  const names = releases.flatMap((release) => [
    forRelease(kernel.packages.image, release),
    forRelease(kernel.packages.debug, release),
  ]);
  const packages = names.length > 0 ? await show(names) : new Map<string, ArchivePackage>();
  let newest: ArchiveKernel | null = null;
  for (const release of releases) {
    const image = packages.get(forRelease(kernel.packages.image, release));
    const debug = packages.get(forRelease(kernel.packages.debug, release));
    // The signed image comes from another source package and may lag behind; both must be of one build.
    if (!image || !debug || image.version !== debug.version) continue;
    if (!newest || (await isNewer(debug.version, newest.debug.version))) newest = { release, image, debug };
  }
  if (newest) return newest;
  throw new KernelsError(
    'package-not-found',
    `apt knows no package pair ${forRelease(kernel.packages.image, `${kernel.series}…-${kernel.flavour}`)} and …-dbg: ` +
      'run `apt-get update`, or add the suite that has Linux ' +
      `${kernel.series} (Debian 12 with its security updates has 6.1 and 6.12)`,
    { kernel: kernel.id },
  );
}

/** Parses the output of `apt-cache show`; leaves out packages without a download (installed only). */
export function parseStanzas(text: string): Map<string, ArchivePackage> {
  const packages = new Map<string, ArchivePackage>();
  for (const stanza of text.split('\n\n')) {
    const field = (name: string) => new RegExp(`^${name}: (.+)$`, 'm').exec(stanza)?.[1];
    const [name, version, sha256, size] = [
      field('Package'),
      field('Version'),
      field('SHA256'),
      field('Size'),
    ];
    const depends = [field('Pre-Depends'), field('Depends')]
      .flatMap((list) => list?.split(',') ?? [])
      .map((entry) => /^\s*([^\s:(|]+)/.exec(entry)![1]!);
    if (name && version && sha256 && size) {
      packages.set(name, { name, version, sha256, size: Number(size), depends });
    }
  }
  return packages;
}

/** Packages in apt's index, by name; missing ones are absent from the result. */
export async function show(
  names: readonly string[],
  apt: AptOptions = [],
): Promise<Map<string, ArchivePackage>> {
  // Exit code 100 means that a package is missing; it is then absent from the result.
  const arguments_ = ['--no-all-versions', 'show', ...names, ...apt];
  const { stdout } = await execa('apt-cache', arguments_, { reject: false });
  return parseStanzas(stdout);
}

/**
 * Packages and their dependencies, as the archive offers them now.
 * @param followed dependencies that are needed where no installed system has to be maintained
 * @throws KernelsError `package-not-found`
 */
export async function closure(roots: readonly string[], followed: RegExp): Promise<ArchivePackage[]> {
  const found = new Map<string, ArchivePackage>();
  for (let wanted = [...roots]; wanted.length > 0; ) {
    const packages = await show(wanted);
    const absent = wanted.filter((name) => !packages.has(name));
    if (absent.length > 0) {
      throw new KernelsError(
        'package-not-found',
        `apt knows no package ${absent.join(', ')}: run \`apt-get update\`; these are Debian 12's`,
        { packages: absent },
      );
    }
    for (const [name, entry] of packages) found.set(name, entry);
    const needed = [...packages.values()].flatMap(({ depends }) => depends);
    wanted = [...new Set(needed)].filter((name) => followed.test(name) && !found.has(name));
  }
  return [...found.values()];
}

/** Whether a package's version is later in Debian's order. */
export async function isNewer(version: string, than: string): Promise<boolean> {
  const { exitCode } = await execa('dpkg', ['--compare-versions', version, 'gt', than], { reject: false });
  return exitCode === 0;
}

/** Updates apt's index; the machine's own requires root. */
export async function updateIndex(apt: AptOptions = []): Promise<void> {
  await execa('apt-get', ['update', '-qq', ...apt]);
}

/**
 * Downloads a .deb into `directory` with apt, which verifies it against its signed index. Continues an earlier
 * interrupted download.
 * @returns path of the .deb
 * @throws KernelsError `download-failed`
 */
export async function download(
  wanted: ArchivePackage,
  directory: string,
  options: { signal?: AbortSignal | undefined; progress?: (bytes: number) => void; apt?: AptOptions } = {},
): Promise<string> {
  await mkdir(directory, { recursive: true });
  // apt's own file name: the colon of the version's epoch is escaped.
  const file = path.join(directory, `${wanted.name}_${wanted.version.replaceAll(':', '%3a')}_amd64.deb`);
  const timer = setInterval(() => options.progress?.(sizeOf(file)), 200);
  try {
    const arguments_ = ['download', '-qq', `${wanted.name}=${wanted.version}`, ...(options.apt ?? [])];
    await execa('apt-get', arguments_, {
      cwd: directory,
      ...(options.signal ? { cancelSignal: options.signal } : {}),
    });
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new KernelsError(
      'download-failed',
      `apt could not download ${wanted.name} ${wanted.version}: ${String((error as { stderr?: unknown }).stderr ?? error)}`,
      { package: wanted.name, version: wanted.version },
      { cause: error },
    );
  } finally {
    clearInterval(timer);
  }
  if (sizeOf(file) !== wanted.size) {
    throw new KernelsError('download-failed', `${file} is not the package that apt announced: try again`, {
      file,
      size: sizeOf(file),
      expected: wanted.size,
    });
  }
  return file;
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}
