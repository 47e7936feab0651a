import { asBuffer } from './byte-source.ts';
import type { SectionData } from './kernel-file.ts';

/** `linux_banner` is built from UTS and compiler strings; two lines of 256 bytes are enough for every real one. */
const MAX_BANNER = 1024;
/** How much of `.rodata` is searched; a distribution kernel's has 2 to 20 MiB. */
const MAX_SEARCH = 128 << 20;
const CHUNK = 1 << 20;
/** Banner-like places that are tried; a kernel has one to three. */
const MAX_TRIES = 1024;
/** init/version.c: "Linux version " UTS_RELEASE " (" LINUX_COMPILE_BY …; the `/proc` template has `%s` instead. */
const START = Buffer.from('Linux version ');

/** The banner at byte `offset` of a section, without its newline; null if there is none. */
export function bannerAt(section: SectionData, offset: number): string | null {
  if (offset < 0 || offset >= section.size) return null;
  const bytes = asBuffer(section.read(offset, Math.min(MAX_BANNER, section.size - offset)));
  const end = bytes.indexOf(0);
  if (end < 0) return null;
  const text = bytes.toString('utf8', 0, end).replace(/\n$/, '');
  return releaseOf(text) === null ? null : text;
}

/**
 * Searches a section for the banner, piece by piece. Since "kbuild: build init/built-in.a just once" (6.1) a kernel has
 * a second, weak banner without build number and time (`# SMP …`), which counts only if there is no other.
 */
export function findBanner(section: SectionData): string | null {
  const total = Math.min(section.size, MAX_SEARCH);
  let incomplete: string | null = null;
  let tries = 0;
  for (let start = 0; start < total; start += CHUNK) {
    // Pieces overlap, so that no banner's start is cut in two.
    const piece = asBuffer(section.read(start, Math.min(CHUNK + START.length, total - start)));
    for (let at = piece.indexOf(START); at >= 0; at = piece.indexOf(START, at + 1)) {
      if (++tries > MAX_TRIES) return incomplete;
      const banner = bannerAt(section, start + at);
      if (banner !== null && / #\d/.test(banner)) return banner;
      incomplete ??= banner;
    }
  }
  return incomplete;
}

/** `uname -r` from a banner; null if the text is no banner. */
export function releaseOf(banner: string): string | null {
  return /^Linux version (\d+\.\d+[^\s%]*) /.exec(banner)?.[1] ?? null;
}
