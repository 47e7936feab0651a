import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import path from 'node:path';
import type { LiveGuest } from './guest.ts';

const PAGE = 4096;
/** Where a program of programs/workload.c writes its name into the page that it counts in. */
const NAME_OFFSET = 64;
const MARK = 'workload progress ';
const CHUNK = 4 * 2 ** 20;

/**
 * What a guest's program counts, read by the host out of the file that the guest's memory is in: while the program
 * runs, in the host's own clock, and without the guest's help.
 */
export class GuestCounter implements Disposable {
  readonly name: string;
  /** Of its page in the file that the guest's memory is in. */
  readonly offset: number;
  readonly #handle: number;
  readonly #bytes = Buffer.alloc(8);

  private constructor(name: string, handle: number, offset: number) {
    this.name = name;
    this.#handle = handle;
    this.offset = offset;
  }

  /** @param guest with its memory in a file @throws Error when no page, or more than one, is the program's */
  static open(guest: LiveGuest, name: string): GuestCounter {
    const handle = openMemory(guest, 'r+');
    const pages = counterPages(handle, [name]).get(name)!;
    if (pages.length === 1) return new GuestCounter(name, handle, pages[0]!);
    closeSync(handle);
    throw new Error(`${pages.length} pages of ${guest.name} say that they are of ${name}`);
  }

  /** @param word of the page: the first one counts, the others are what the program makes of them */
  read(word = 0): bigint {
    readSync(this.#handle, this.#bytes, 0, 8, this.offset + 8 * word);
    return this.#bytes.readBigUInt64LE();
  }

  /** Tells the program something, while it runs or is paused. */
  write(word: number, value: bigint): void {
    this.#bytes.writeBigUInt64LE(value);
    writeSync(this.#handle, this.#bytes, 0, 8, this.offset + 8 * word);
  }

  /** Whether the page is still the program's. */
  get isThere(): boolean {
    const bytes = Buffer.alloc(PAGE);
    readSync(this.#handle, bytes, 0, PAGE, this.offset);
    return bytes.includes(`${MARK}${this.name}\0`);
  }

  [Symbol.dispose](): void {
    closeSync(this.#handle);
  }
}

/** The counters of several programs, followed where the guest's kernel moves their pages. */
export class GuestCounters implements Disposable {
  readonly #guest: LiveGuest;
  readonly #names: readonly string[];
  readonly #handle: number;
  readonly #offsets = new Map<string, number>();
  readonly #bytes = Buffer.alloc(8);

  /** @param guest with its memory in a file @throws Error when a program has no page yet */
  constructor(guest: LiveGuest, names: readonly string[]) {
    this.#guest = guest;
    this.#names = names;
    this.#handle = openMemory(guest);
    try {
      this.find();
    } catch (error) {
      closeSync(this.#handle);
      throw error;
    }
  }

  /**
   * Looks for all pages anew. One that was moved leaves a copy behind, which counts no further: of several the one
   * that has come furthest is the program's.
   */
  find(): void {
    for (const [name, pages] of counterPages(this.#handle, this.#names)) {
      const [best] = pages.sort((a, b) => this.#read(b) - this.#read(a));
      if (best === undefined) throw new Error(`no page of ${this.#guest.name} says that it is of ${name}`);
      this.#offsets.set(name, best);
    }
  }

  /** What the programs have counted so far. */
  progress(...names: string[]): Record<string, number> {
    return Object.fromEntries(names.map((name) => [name, this.#read(this.#offsets.get(name)!)]));
  }

  #read(offset: number): number {
    readSync(this.#handle, this.#bytes, 0, 8, offset);
    return Number(this.#bytes.readBigUInt64LE());
  }

  [Symbol.dispose](): void {
    closeSync(this.#handle);
  }
}

function openMemory(guest: LiveGuest, flags: 'r' | 'r+' = 'r'): number {
  return openSync(path.join(guest.directory, 'memory'), flags);
}

/** Offsets in the memory's file of the pages that say whose they are. */
function counterPages(handle: number, names: readonly string[]): Map<string, number[]> {
  const found = new Map<string, number[]>(names.map((name) => [name, []]));
  const { size } = fstatSync(handle);
  const bytes = Buffer.alloc(CHUNK);
  for (let at = 0; at < size; at += CHUNK) {
    const chunk = bytes.subarray(0, readSync(handle, bytes, 0, CHUNK, at));
    for (let i = chunk.indexOf(MARK); i >= 0; i = chunk.indexOf(MARK, i + 1)) {
      if (i % PAGE !== NAME_OFFSET) continue;
      const from = i + MARK.length;
      const name = chunk.toString('latin1', from, chunk.indexOf(0, from));
      found.get(name)?.push(at + i - NAME_OFFSET);
    }
  }
  return found;
}
