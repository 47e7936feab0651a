import { existsSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { asBuffer, FileSource } from './byte-source.ts';
import { isElf } from './format.ts';
import { type ElfImage, readElfImage } from './image.ts';
import { buildIdOf, SectionSet } from './section-set.ts';

/** Folders where Debian and others install separate debug files. */
export const DEBUG_ROOTS: readonly string[] = ['/usr/lib/debug'];
const MAX_LINK = 4096;
const CRC_CHUNK = 1 << 20;

/**
 * Finds the separate debug file of a stripped kernel like gdb ("Debugging Information in Separate Files"): by build-id
 * below each root's `.build-id/`; by the name in `.gnu_debuglink` in the file's directory, its `.debug/` and below the
 * roots; then where kernel packages put the whole vmlinux. It must have the same build-id, or if neither has one, the
 * checksum in the link. Others are skipped.
 *
 * @returns the debug file, to be closed by the caller; null if there is none or none is needed
 * @throws ExtractError if the right file is damaged
 */
export function findDebugFile(
  path: string,
  sections: SectionSet,
  release: () => string | null,
  roots: readonly string[],
): ElfImage | null {
  if (sections.has('.debug_info')) return null;
  const buildId = buildIdOf(sections);
  const link = readDebugLink(sections);
  for (const candidate of candidates(path, buildId, link?.name ?? null, release(), roots)) {
    const image = openCandidate(candidate, path);
    if (!image) continue;
    const its = buildIdOf(new SectionSet([image]));
    const same = buildId !== null && its !== null ? its === buildId : matchesChecksum(image, link?.crc);
    if (same) return image;
    image.source[Symbol.dispose]();
  }
  return null;
}

function* candidates(
  path: string,
  buildId: string | null,
  link: string | null,
  release: string | null,
  roots: readonly string[],
): Generator<string> {
  if (buildId !== null && buildId.length > 2) {
    for (const root of roots) yield join(root, '.build-id', buildId.slice(0, 2), `${buildId.slice(2)}.debug`);
  }
  if (link !== null) {
    const directory = dirname(realpathSync(path));
    yield join(directory, link);
    yield join(directory, '.debug', link);
    for (const root of roots) yield join(root, directory, link);
  }
  if (buildId !== null && release !== null && !release.includes('/')) {
    for (const root of roots) {
      yield join(root, `vmlinux-${release}`);
      yield join(root, 'boot', `vmlinux-${release}`);
      yield join(root, 'lib', 'modules', release, 'vmlinux');
      yield join(root, 'usr', 'lib', 'modules', release, 'vmlinux');
    }
  }
}

/** Whether a file is a result of `objcopy --only-keep-debug`: a kernel's sections without their bytes. */
export function isDebugAlone(sections: SectionSet): boolean {
  return sections.has('.debug_info') && sections.lacksBytes('.rodata');
}

/** Files examined beside a debug file. */
const MAX_BESIDE = 256;

/**
 * Possible locations of a debug file's kernel: beside it, in the parent of its `.debug/`, or where it is installed if
 * the debug file is below a root. Boot images are listed by name, because only unpacking shows what they are.
 */
export function* partners(path: string, roots: readonly string[]): Generator<string> {
  const real = realpathSync(path);
  const folder = dirname(real);
  const above = roots
    .filter((root) => existsSync(root))
    .map((root) => realpathSync(root))
    .filter((root) => folder.startsWith(`${root}/`))
    .map((root) => folder.slice(root.length));
  const folders = [...(basename(folder) === '.debug' ? [dirname(folder)] : []), folder, ...above];
  const image = basename(real)
    .replace(/\.(?:debug|dbg)$/, '')
    .replace(/^vmlinux/, 'vmlinuz');
  for (const place of folders) {
    if (!existsSync(place)) continue;
    for (const name of readdirSync(place).sort().slice(0, MAX_BESIDE)) {
      const file = join(place, name);
      if (file !== real && statSync(file, { throwIfNoEntry: false })?.isFile() && startsAsElf(file))
        yield file;
    }
  }
  for (const place of [...folders, '/boot']) {
    const file = join(place, image);
    if (file !== real && existsSync(file)) yield file;
  }
}

function startsAsElf(path: string): boolean {
  try {
    using source = FileSource.open(path);
    return source.size >= 4 && isElf(source.read(0, 4));
  } catch {
    // Nothing is known about a file that we may not read.
    return false;
  }
}

/** `.gnu_debuglink`: a file name, padding to 4 bytes, CRC-32 of the whole debug file. */
function readDebugLink(sections: SectionSet): { name: string; crc: number } | null {
  const section = sections.get('.gnu_debuglink');
  if (!section || section.size < 6 || section.size > MAX_LINK) return null;
  const bytes = asBuffer(section.read());
  const name = bytes.toString('utf8', 0, bytes.indexOf(0));
  const crcAt = Math.ceil((bytes.indexOf(0) + 1) / 4) * 4;
  // The name comes from the file, so it must not lead out of the searched directories.
  if (bytes.indexOf(0) <= 0 || name.includes('/') || name === '..' || crcAt + 4 > bytes.length) return null;
  return { name, crc: bytes.readUInt32LE(crcAt) };
}

function openCandidate(candidate: string, path: string): ElfImage | null {
  if (!existsSync(candidate) || !statSync(candidate).isFile() || isSameFile(candidate, path)) return null;
  const source = FileSource.open(candidate);
  try {
    if (isElf(source.read(0, Math.min(4, source.size)))) return readElfImage(source);
    source[Symbol.dispose]();
    return null;
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

function isSameFile(one: string, other: string): boolean {
  const a = statSync(one);
  const b = statSync(other);
  return a.dev === b.dev && a.ino === b.ino;
}

function matchesChecksum({ source }: ElfImage, expected: number | undefined): boolean {
  if (expected === undefined) return false;
  let crc = 0;
  for (let at = 0; at < source.size; at += CRC_CHUNK) {
    crc = crc32(source.read(at, Math.min(CRC_CHUNK, source.size - at)), crc);
  }
  return crc === expected;
}
