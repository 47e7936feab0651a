import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { ExtractError } from '../error.ts';
import { asBuffer, FileSource } from './byte-source.ts';
import type { SectionData } from './kernel-file.ts';

/** A distribution's configuration has about 300 KiB of text. */
const MAX_TEXT = 8 << 20;
/** How much of `.rodata` is searched for an embedded one. */
const MAX_SEARCH = 128 << 20;
const CHUNK = 1 << 20;
/** Possible starts that are tried: a kernel has one, and perhaps the text of a tool that searches for it. */
const MAX_TRIES = 16;

/** kernel/configs.c wraps the gzipped configuration between these. */
const START = Buffer.from('IKCFG_ST');
const END = Buffer.from('IKCFG_ED');

/**
 * Reads a configuration file, plain or gzipped like `/proc/config.gz`.
 * @returns only set options, with values as Kconfig writes them (`y`, `m`, `64`, `"text"`)
 * @throws ExtractError `file-not-found`, `file-unreadable`, `config-mismatch` if it is no configuration
 */
export function readConfigFile(path: string): Record<string, string> {
  using source = FileSource.open(path);
  const bytes =
    source.size > 0 ? source.read(0, Math.min(source.size, MAX_TEXT)) : source.readToEnd(MAX_TEXT);
  const config = parseConfig(gunzipIfPacked(bytes));
  if (config) return config;
  throw new ExtractError(
    'config-mismatch',
    `${path} has no CONFIG_ lines; give the .config of the build or the guest's /boot/config-…`,
    { path },
  );
}

/** `config-<release>` in the kernel file's own directory, where packages put it; null if there is none. */
export function configBeside(kernelPath: string, release: string | null): string | null {
  if (release === null || release.includes('/')) return null;
  const path = join(dirname(kernelPath), `config-${release}`);
  return existsSync(path) ? path : null;
}

/** The configuration that CONFIG_IKCONFIG embeds into `.rodata`; null if there is none. */
export function findEmbeddedConfig(rodata: SectionData): Record<string, string> | null {
  const total = Math.min(rodata.size, MAX_SEARCH);
  let tries = 0;
  for (let start = 0; start < total; start += CHUNK) {
    const piece = asBuffer(rodata.read(start, Math.min(CHUNK + START.length, total - start)));
    for (let at = piece.indexOf(START); at >= 0; at = piece.indexOf(START, at + 1)) {
      if (++tries > MAX_TRIES) return null;
      const from = start + at + START.length;
      const packed = asBuffer(rodata.read(from, Math.min(MAX_TEXT, rodata.size - from)));
      const end = packed.indexOf(END);
      const config = end < 0 ? null : parseConfig(gunzipIfPacked(packed.subarray(0, end)));
      if (config) return config;
    }
  }
  return null;
}

function gunzipIfPacked(bytes: Buffer): string {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.toString('utf8');
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_TEXT }).toString('utf8');
  } catch {
    return '';
  }
}

const OPTION = /^CONFIG_\w+$/;

function parseConfig(text: string): Record<string, string> | null {
  const config: Record<string, string> = {};
  // Line by line: one expression over the whole text takes three times as long, and every extraction runs this.
  for (const line of text.split('\n')) {
    const end = line.startsWith('CONFIG_') ? line.indexOf('=') : -1;
    if (end < 0 || !OPTION.test(line.slice(0, end))) continue;
    config[line.slice(0, end)] = line.endsWith('\r') ? line.slice(end + 1, -1) : line.slice(end + 1);
  }
  return Object.keys(config).length > 0 ? config : null;
}
