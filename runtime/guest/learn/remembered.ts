import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import type { KernelLayout, MemoryEvidence } from '../../../extractor/contract.ts';
import { cacheDirectory } from '../../cache-directory.ts';
import { makePrivate, writePrivate } from '../../runtime-directory.ts';
import type { Learned } from '../identify/types.ts';

export const MEMORY_LAYOUT_FORMAT = 'domsched-memory-layout/1';
/** The guests of a host have fewer different kernels; beyond that the oldest entry is dropped. */
const MAX_ENTRIES = 64;
/** Most bytes of an entry; a layout of a real kernel has some 700 KiB. */
export const MAX_ENTRY_BYTES = 8 << 20;

/** A layout that was read from a guest's memory earlier. */
export interface Remembered extends Learned {
  readonly format: typeof MEMORY_LAYOUT_FORMAT;
  readonly evidence: MemoryEvidence;
  /** The {@link evidenceHash} of guests that it may be used for. */
  readonly hash: string;
  readonly layout: KernelLayout;
}

/** Directory of remembered layouts. */
export function memoryLayoutsDirectory(env: NodeJS.ProcessEnv = process.env): string {
  return path.join(cacheDirectory(env), 'layouts');
}

/**
 * Layouts that were read from guests' memory, in a directory that nobody else may write to. If there cannot be one,
 * nothing is kept and everything works without it.
 */
export class MemoryLayouts {
  readonly directory: string;

  constructor(directory = memoryLayoutsDirectory()) {
    this.directory = directory;
  }

  /** Whether a kernel with this banner may be among them. */
  has(banner: string): boolean {
    return this.#files(banner).length > 0;
  }

  /** Entries of kernels with this banner, the latest first. */
  *of(banner: string): Generator<Remembered> {
    for (const file of this.#files(banner)) {
      const found = this.#read(file);
      if (found?.layout.kernel.banner === banner) yield found;
    }
  }

  /** All entries, the latest first. */
  all(): Remembered[] {
    return this.#files().flatMap((file) => this.#read(file) ?? []);
  }

  keep(entry: Omit<Remembered, 'format'>): void {
    const { banner } = entry.layout.kernel;
    if (banner === null) return;
    const text = JSON.stringify({ format: MEMORY_LAYOUT_FORMAT, ...entry } satisfies Remembered);
    if (text.length > MAX_ENTRY_BYTES) return;
    const file = path.join(this.directory, `${prefix(banner)}${entry.hash.slice(0, 32)}.json`);
    const draft = `${file}.${process.pid}`;
    try {
      makePrivate(this.directory);
      writePrivate(draft, text);
      renameSync(draft, file);
      for (const old of this.#files().slice(MAX_ENTRIES)) rmSync(old, { force: true });
    } catch {
      // The layout is right even if it cannot be kept (the directory is missing or not ours alone, the disk is full).
      rmSync(draft, { force: true });
    }
  }

  #files(banner?: string): string[] {
    const start = banner === undefined ? prefixOfTool() : prefix(banner);
    try {
      return readdirSync(this.directory)
        .filter((name) => name.startsWith(start) && name.endsWith('.json'))
        .map((name) => path.join(this.directory, name))
        .map((file) => ({ file, time: statSync(file).mtimeMs }))
        .sort((a, b) => b.time - a.time)
        .map(({ file }) => file);
    } catch {
      return [];
    }
  }

  #read(file: string): Remembered | null {
    try {
      // Anybody who may write there could give us any layout.
      makePrivate(this.directory);
      const { size, mtimeMs, ino } = statSync(file);
      if (size > MAX_ENTRY_BYTES) return null;
      const stamp = `${size} ${mtimeMs} ${ino}`;
      const before = lately.get(file);
      if (before?.stamp === stamp) return before.entry;
      const entry = JSON.parse(readFileSync(file, 'utf8')) as Remembered;
      if (entry.format !== MEMORY_LAYOUT_FORMAT) return null;
      lately.delete(file);
      lately.set(file, { stamp, entry });
      if (lately.size > MAX_LATELY) lately.delete(lately.keys().next().value!);
      return entry;
    } catch {
      return null;
    }
  }
}

/** Entries that were read last, by file: of a host full of guests with one kernel each costs its own proof alone. */
const lately = new Map<string, { readonly stamp: string; readonly entry: Remembered }>();
/** Of an entry some MiB are kept. */
const MAX_LATELY = 4;

function prefix(banner: string): string {
  return `${prefixOfTool()}${digest(banner)}-`;
}

/** Identifies this program: what it learns from a kernel changes, and an older entry may lack something. */
function prefixOfTool(): string {
  tool ??= digest(STRUCTURES.map((url) => statSync(url).mtimeMs).join(' ')).slice(0, 8);
  return `${tool}-`;
}
let tool: string | undefined;

const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
const STRUCTURES = [
  new URL(`../../../extractor/needs.${ending}`, import.meta.url),
  new URL(`../../../extractor/structures.${ending}`, import.meta.url),
  new URL(`../../../extractor/memory/memory-kernel.${ending}`, import.meta.url),
];

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
