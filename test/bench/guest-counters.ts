import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import type { LiveGuest } from '../live/guest.ts';

const PAGE = 4096;
/** Where a program of test/live/programs/workload.c writes its name into the page that it counts in. */
const NAME_OFFSET = 64;
const CHUNK = 4 * 2 ** 20;

/**
 * What a guest's program counts, read by the host out of the file that the guest's memory is in: while the program
 * runs, in the host's own clock, and without the guest's help.
 */
export class GuestCounter implements Disposable {
  readonly name: string;
  readonly #handle: number;
  readonly #offset: number;
  readonly #bytes = Buffer.alloc(8);

  private constructor(name: string, handle: number, offset: number) {
    this.name = name;
    this.#handle = handle;
    this.#offset = offset;
  }

  /** @param guest with its memory in a file @throws Error when no page, or more than one, is the program's */
  static open(guest: LiveGuest, name: string): GuestCounter {
    const handle = openSync(path.join(guest.directory, 'memory'), 'r');
    const pages = pagesOf(handle, Buffer.from(`workload progress ${name}\0`));
    if (pages.length === 1) return new GuestCounter(name, handle, pages[0]!);
    closeSync(handle);
    throw new Error(`${pages.length} pages of ${guest.name} say that they are of ${name}`);
  }

  read(): bigint {
    readSync(this.#handle, this.#bytes, 0, 8, this.#offset);
    return this.#bytes.readBigUInt64LE();
  }

  /** Whether the page is still the program's. */
  get isThere(): boolean {
    const bytes = Buffer.alloc(PAGE);
    readSync(this.#handle, bytes, 0, PAGE, this.#offset);
    return bytes.includes(`workload progress ${this.name}\0`);
  }

  [Symbol.dispose](): void {
    closeSync(this.#handle);
  }
}

function pagesOf(handle: number, mark: Buffer): number[] {
  const found: number[] = [];
  const { size } = fstatSync(handle);
  const bytes = Buffer.alloc(CHUNK);
  for (let at = 0; at < size; at += CHUNK) {
    const length = readSync(handle, bytes, 0, CHUNK, at);
    const chunk = bytes.subarray(0, length);
    for (let i = chunk.indexOf(mark); i >= 0; i = chunk.indexOf(mark, i + 1)) {
      if (i % PAGE === NAME_OFFSET) found.push(at + i - NAME_OFFSET);
    }
  }
  return found;
}
