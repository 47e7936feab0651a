import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import type { KernelLayout, MemoryEvidence } from '../../../extractor/contract.ts';
import { cacheDirectory } from '../../cache-directory.ts';
import { PrivateCache } from '../../private-cache.ts';
import type { Learned } from '../identify/types.ts';
import type { Seal } from './evidence.ts';

export const MEMORY_LAYOUT_FORMAT = 'domsched-memory-layout/1';
/** The guests of a host have fewer different kernels; beyond that the oldest entry is dropped. */
const MAX_ENTRIES = 64;
/** Most bytes of an entry; a layout of a real kernel has some 700 KiB. */
export const MAX_ENTRY_BYTES = 8 << 20;

/** A layout that was read from a guest's memory earlier. */
export interface Remembered extends Learned {
  readonly format: typeof MEMORY_LAYOUT_FORMAT;
  readonly evidence: MemoryEvidence;
  /** SHA-256 of the evidence of guests that it may be used for. */
  readonly hash: string;
  readonly layout: KernelLayout;
}

/** An entry, and what stays on this host of it. */
export interface KeptLayout {
  readonly entry: Remembered;
  readonly seal: Seal;
}

/** Directory of remembered layouts. */
export function memoryLayoutsDirectory(env: NodeJS.ProcessEnv = process.env): string {
  return path.join(cacheDirectory(env), 'layouts');
}

/** Layouts that were read from guests' memory. */
export class MemoryLayouts {
  readonly #cache: PrivateCache;

  constructor(directory = memoryLayoutsDirectory()) {
    this.#cache = new PrivateCache(directory, { entries: MAX_ENTRIES, bytes: MAX_ENTRY_BYTES });
  }

  get directory(): string {
    return this.#cache.directory;
  }

  /** Whether a kernel with this banner may be among them. */
  has(banner: string): boolean {
    return this.#cache.files(prefix(banner)).length > 0;
  }

  /** Entries of kernels with this banner, the latest first. */
  *of(banner: string): Generator<KeptLayout> {
    for (const file of this.#cache.files(prefix(banner))) {
      const found = this.#read(file);
      if (found?.entry.layout.kernel.banner === banner) yield found;
    }
  }

  /** All entries, the latest first. */
  all(): Remembered[] {
    return this.#cache.files(prefixOfTool()).flatMap((file) => this.#read(file)?.entry ?? []);
  }

  keep({ entry, seal }: KeptLayout): void {
    const { banner } = entry.layout.kernel;
    if (banner === null) return;
    const name = `${prefix(banner)}${entry.hash.slice(0, 32)}`;
    this.#cache.keep(name, JSON.stringify({ ...entry, seal }), prefixOfTool());
  }

  #read(file: string): KeptLayout | null {
    const stamp = this.#cache.stamp(file);
    const before = lately.get(file);
    if (stamp !== null && before?.stamp === stamp) return before.kept;
    const kept = parse(this.#cache.read(file));
    if (stamp === null || kept === null) return null;
    lately.delete(file);
    lately.set(file, { stamp, kept });
    if (lately.size > MAX_LATELY) lately.delete(lately.keys().next().value!);
    return kept;
  }
}

function parse(text: string | null): KeptLayout | null {
  try {
    const { seal, ...entry } = JSON.parse(text ?? '') as Remembered & { seal?: Partial<Seal> };
    const { key, tag } = seal ?? {};
    if (entry.format !== MEMORY_LAYOUT_FORMAT || typeof key !== 'string' || typeof tag !== 'string')
      return null;
    return { entry, seal: { key, tag } };
  } catch {
    return null;
  }
}

/** Entries that were read last, by file: of a host full of guests with one kernel each costs its own proof alone. */
const lately = new Map<string, { readonly stamp: string; readonly kept: KeptLayout }>();
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
