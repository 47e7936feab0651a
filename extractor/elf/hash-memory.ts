import {
  type BigIntStats,
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { ROOT } from '../installation.ts';

/**
 * Hashes of big files, remembered as git's index does: by device, inode, size and times of the very file. The
 * change time cannot be set by a program, so replaced or edited bytes are always hashed anew. Losing this file
 * costs time only; where it cannot be written, nothing is remembered.
 */
const FORMAT = 'domsched-hashes/1';
const MAX_ENTRIES = 64;
const MAX_FILE = 64 << 10;
/** A file changed twice within the resolution of its times would look unchanged; 2 s is the coarsest in use. */
const SETTLED_MS = 2000;

/** What a remembered hash holds for. */
export function fingerprint(stat: BigIntStats): string {
  return [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join(':');
}

/** The SHA-256 remembered for a fingerprint, or null. */
export function recallHash(key: string): string | null {
  return load().find(([its]) => its === key)?.[1] ?? null;
}

/** @param changedMs when the file last changed; one that changed just before `startedMs` is not remembered */
export function rememberHash(key: string, sha256: string, changedMs: number, startedMs: number): void {
  if (startedMs - changedMs < SETTLED_MS) return;
  const entries = [[key, sha256] as const, ...load().filter(([its]) => its !== key)].slice(0, MAX_ENTRIES);
  const path = memoryPath();
  const draft = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  try {
    mkdirSync(join(path, '..'), { recursive: true, mode: 0o700 });
    writeFileSync(draft, JSON.stringify({ format: FORMAT, entries }), { mode: 0o600, flag: 'wx' });
    renameSync(draft, path);
  } catch {
    // No home directory, a full or read-only disk: the hash is right all the same.
    rmSync(draft, { force: true });
  }
}

/** Where the environment says; else in a checkout with its other caches, or with the user's. */
function memoryPath(): string {
  const configured = process.env.XDG_CACHE_HOME;
  if (configured && isAbsolute(configured)) return join(configured, 'domsched', 'hashes.json');
  return join(checkoutCache() ?? join(homedir(), '.cache', 'domsched'), 'hashes.json');
}

/** The checkout's own cache folder; null for an installed package. */
function checkoutCache(): string | null {
  const folder = fileURLToPath(ROOT);
  return existsSync(join(folder, 'extractor', 'elf')) && existsSync(join(folder, '.git'))
    ? join(folder, '.cache')
    : null;
}

function load(): (readonly [key: string, sha256: string])[] {
  let fd: number | undefined;
  try {
    fd = openSync(memoryPath(), 'r');
    // Somebody else's word on what a file holds is not taken.
    if (fstatSync(fd).uid !== process.getuid?.()) return [];
    const bytes = Buffer.alloc(MAX_FILE);
    const text = bytes.toString('utf8', 0, readSync(fd, bytes, 0, MAX_FILE, 0));
    const { format, entries } = JSON.parse(text) as { format?: unknown; entries?: unknown };
    if (format !== FORMAT || !Array.isArray(entries)) return [];
    return entries.filter(
      (entry): entry is [string, string] =>
        Array.isArray(entry) && typeof entry[0] === 'string' && /^[0-9a-f]{64}$/.test(String(entry[1])),
    );
  } catch {
    return [];
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
