import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { releaseOf } from './banner.ts';
import { FileSource } from './byte-source.ts';
import { readBuildId } from './notes.ts';
import { PlainSection } from './section.ts';

/** File with the running kernel's own BTF. */
const OWN_BTF = '/sys/kernel/btf/vmlinux';

/** What the running kernel tells about itself. */
export interface RunningKernel {
  /** As in its memory: `/proc/version` and `linux_banner` have the same text (init/version.c). */
  banner: string | null;
  buildId: string | null;
  /** Path of its configuration; null if it shows none. */
  config: string | null;
}

/**
 * Facts that BTF lacks, if the file is the running kernel's own; null for any other file.
 * @param root directory that contains `/sys`, `/proc` and `/boot`
 */
export function runningKernel(path: string, root = '/'): RunningKernel | null {
  const own = real(join(root, OWN_BTF));
  if (own === null || real(path) !== own) return null;
  const text = tryRead(join(root, 'proc/version'));
  const banner = text !== null && releaseOf(text) !== null ? text.split('\n')[0]! : null;
  const release = banner === null ? null : releaseOf(banner);
  const places = ['proc/config.gz', ...(release?.includes('/') === false ? [`boot/config-${release}`] : [])];
  const config = places.map((place) => join(root, place)).find((place) => existsSync(place)) ?? null;
  return { banner, buildId: ownBuildId(join(root, 'sys/kernel/notes')), config };
}

function ownBuildId(path: string): string | null {
  try {
    using source = FileSource.open(path);
    return readBuildId(new PlainSection(source, '.notes', 0n, 0, source.size));
  } catch {
    // A container may hide it; then only the banner identifies this kernel.
    return null;
  }
}

function tryRead(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function real(path: string): string | null {
  try {
    return realpathSync(path);
  } catch {
    return null;
  }
}
