import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import type { KernelLayout, MemoryEvidence } from '../../../extractor/contract.ts';
import { makePrivate, writePrivate } from '../../runtime-directory.ts';
import type { Learned } from '../identify/types.ts';

const FORMAT = 'domsched-memory-layout/1';
/** A host's guests have fewer kernels than these; the oldest goes. */
const MAX_ENTRIES = 64;
/** A layout of a real kernel is some 700 KiB. */
const MAX_BYTES = 8 << 20;

/** A layout that was read from a guest's memory before. */
export interface Remembered extends Learned {
  readonly format: typeof FORMAT;
  readonly evidence: MemoryEvidence;
  /** What {@link evidenceHash} says of a guest that it is good for. */
  readonly hash: string;
  readonly layout: KernelLayout;
}

/** Where they are kept: DOMSCHED_CACHE_DIR, for root the system's cache, else the user's own. */
export function memoryLayoutsDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const chosen = env.DOMSCHED_CACHE_DIR;
  if (chosen?.startsWith('/')) return path.join(chosen, 'layouts');
  if (process.getuid?.() === 0) return '/var/cache/domsched/layouts';
  const cache = env.XDG_CACHE_HOME?.startsWith('/') ? env.XDG_CACHE_HOME : path.join(homedir(), '.cache');
  return path.join(cache, 'domsched', 'layouts');
}

/**
 * Layouts that were read from guests' memory, in a folder that nobody else may write to; where there can be none, nothing
 * is kept, and everything works without.
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

  /** Those of kernels with this banner, the latest first. */
  *of(banner: string): Generator<Remembered> {
    for (const file of this.#files(banner)) {
      const found = this.#read(file);
      if (found?.layout.kernel.banner === banner) yield found;
    }
  }

  /** All of them, the latest first. */
  all(): Remembered[] {
    return this.#files().flatMap((file) => this.#read(file) ?? []);
  }

  keep(entry: Omit<Remembered, 'format'>): void {
    const { banner } = entry.layout.kernel;
    if (banner === null) return;
    const text = JSON.stringify({ format: FORMAT, ...entry } satisfies Remembered);
    if (text.length > MAX_BYTES) return;
    const file = path.join(this.directory, `${prefix(banner)}${entry.hash.slice(0, 32)}.json`);
    const draft = `${file}.${process.pid}`;
    try {
      makePrivate(this.directory);
      writePrivate(draft, text);
      renameSync(draft, file);
      for (const old of this.#files().slice(MAX_ENTRIES)) rmSync(old, { force: true });
    } catch {
      // No such folder can be made, it is not ours alone, or the disk is full: the layout is right all the same.
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
      // Whoever may write there may give us any layout.
      makePrivate(this.directory);
      if (statSync(file).size > MAX_BYTES) return null;
      const entry = JSON.parse(readFileSync(file, 'utf8')) as Remembered;
      return entry.format === FORMAT ? entry : null;
    } catch {
      return null;
    }
  }
}

function prefix(banner: string): string {
  return `${prefixOfTool()}${digest(banner)}-`;
}

/** What is asked of a kernel changes with this program: what an older one learned may lack something. */
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
