/**
 * `node kernels/fetch.ts [--all] [ID …]` downloads Debian's kernels into `.cache/kernels/`, one folder per release.
 * Current ones are kept. It can be interrupted at any time and then continues.
 */
import { existsSync } from 'node:fs';
import { mkdir, rename, rm, statfs, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import ora from 'ora';
import { type ArchiveKernel, download, resolve, updateIndex } from './apt.ts';
import { cachedKernel, cachedKernels, type Provenance } from './cache.ts';
import { type ExtractedFile, extractFile } from './deb.ts';
import { KernelsError } from './error.ts';
import { type DebianKernel, debianKernels, forRelease } from './manifest.ts';
import { takeModules } from './modules.ts';
import { kernelCache } from './paths.ts';

/** The largest debug vmlinux so far has 0.7 GB; with the .deb beside it this leaves room to grow. */
const VMLINUX_ROOM = 1_200_000_000;

export interface FetchOptions {
  /** Folder of the kernels: {@link kernelCache}. */
  directory: string;
  signal: AbortSignal;
  /** Receives one-line messages about progress. */
  progress?: (text: string) => void;
}

/**
 * Downloads one kernel into the cache. Its release's folder appears only once it is complete.
 * @returns one line about what was done
 * @throws KernelsError `package-not-found`, `download-failed`, `package-broken`, `no-space`
 */
export async function fetchKernel(
  kernel: DebianKernel,
  { directory, signal, progress }: FetchOptions,
): Promise<string> {
  const found = await resolve(kernel);
  if (isCurrent(kernel, found, directory)) return `${found.release} is there (${found.debug.version})`;
  const { release } = found;
  const folder = path.join(directory, release);
  const downloads = path.join(directory, 'download');
  const incoming = path.join(directory, 'incoming', release);
  await mkdir(downloads, { recursive: true });
  await requireSpace(found, directory);
  await rm(incoming, { recursive: true, force: true });
  await mkdir(incoming, { recursive: true });
  const files: Record<string, ExtractedFile> = {};
  try {
    for (const [which, members] of [
      ['image', ['vmlinuz', 'config']],
      ['debug', ['vmlinux']],
    ] as const) {
      const wanted = found[which];
      const deb = await download(wanted, downloads, {
        signal,
        progress: (bytes) => {
          progress?.(
            `${release}: downloading ${wanted.name}, ${megabytes(bytes)} of ${megabytes(wanted.size)}`,
          );
        },
      });
      for (const member of members) {
        const name = `${member}-${release}`;
        files[name] = await extractFile(
          deb,
          forRelease(kernel.files[member], release),
          path.join(incoming, name),
          {
            signal,
            progress: (bytes) => {
              progress?.(`${release}: taking ${name} out of the package, ${megabytes(bytes)}`);
            },
          },
        );
      }
      if (which === 'image') await takeModules(deb, path.join(incoming, 'modules'));
      await rm(deb);
    }
    const provenance: Provenance = {
      kernel: kernel.id,
      release,
      packages: { image: identity(found.image), debug: identity(found.debug) },
      files,
    };
    await writeFile(path.join(incoming, 'provenance.json'), `${JSON.stringify(provenance, null, 2)}\n`);
    await rm(folder, { recursive: true, force: true });
    await rename(incoming, folder);
  } finally {
    await rm(incoming, { recursive: true, force: true });
  }
  return `${release} fetched (${found.debug.version})`;
}

function isCurrent(kernel: DebianKernel, found: ArchiveKernel, directory: string): boolean {
  const cached = cachedKernel(found.release, directory);
  return cached?.id === kernel.id && cached.provenance.packages.debug.sha256 === found.debug.sha256;
}

function identity({ name, version, sha256 }: ArchiveKernel['image']): Provenance['packages']['image'] {
  return { name, version, sha256 };
}

async function requireSpace(found: ArchiveKernel, directory: string): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const needed = found.image.size + found.debug.size + VMLINUX_ROOM;
  if (bavail * bsize >= needed) return;
  throw new KernelsError(
    'no-space',
    `${found.release} needs ${megabytes(needed)} in ${directory} for a while, ${megabytes(bavail * bsize)} are free`,
    { needed, free: bavail * bsize, directory },
  );
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}

async function main(arguments_: string[]): Promise<void> {
  const kernels = debianKernels();
  const ids = arguments_.filter((argument) => argument !== '--all');
  const unknown = ids.filter((id) => !kernels.some((kernel) => kernel.id === id));
  if (unknown.length > 0) {
    throw new KernelsError(
      'kernel-absent',
      `no kernel is called ${unknown.join(', ')}; there are ${kernels.map(({ id }) => id).join(', ')}`,
    );
  }
  const wanted = kernels.filter((kernel) =>
    ids.length > 0 ? ids.includes(kernel.id) : arguments_.includes('--all') || kernel.default,
  );
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () =>
      controller.abort(new KernelsError('interrupted', `interrupted by ${name}: run it again to go on`)),
    );
  }
  for (const kernel of wanted) {
    const progress = ora({ text: kernel.id, isSilent: !process.stderr.isTTY, discardStdin: false }).start();
    try {
      const done = await withFreshIndex(() =>
        fetchKernel(kernel, {
          directory: kernelCache,
          signal: controller.signal,
          progress: (text) => {
            progress.text = text;
          },
        }),
      );
      progress.succeed(`${kernel.id}: ${done}`);
      if (!process.stderr.isTTY) process.stdout.write(`${kernel.id}: ${done}\n`);
    } catch (error) {
      progress.stop();
      controller.signal.throwIfAborted();
      // Without the archive (no network, no apt) an older kernel of the same kind will do.
      const older = cachedKernels().findLast(({ id }) => id === kernel.id);
      if (!older || !(error instanceof KernelsError) || error.code === 'no-space') throw error;
      process.stderr.write(`${kernel.id}: ${error.message}\n${kernel.id}: going on with ${older.release}\n`);
    }
  }
}

/** An old index names packages that are gone: update it once and try again. */
async function withFreshIndex<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (
      !(error instanceof KernelsError) ||
      !['package-not-found', 'download-failed'].includes(error.code) ||
      process.getuid?.() !== 0
    ) {
      throw error;
    }
    await updateIndex().catch(() => {
      throw error;
    });
    return action();
  }
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof KernelsError)) throw error;
    process.stderr.write(`kernels: ${error.message} [${error.code}]\n`);
    process.exitCode = 1;
  } finally {
    // Nothing is left to resume once every kernel is in its folder; a partial download stays for the next run.
    const incoming = path.join(kernelCache, 'incoming');
    if (existsSync(incoming)) await rm(incoming, { recursive: true });
  }
}
