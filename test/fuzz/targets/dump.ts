/** Dumps of every format. */
import { DumpBytes } from '../../../runtime/hypervisor/dump/file.ts';
import { readDump } from '../../../runtime/hypervisor/dump/open.ts';
import { seeds as dumps } from '../../runtime/hypervisor/fuzz.ts';

/** Regions and frames of each that are read. */
const SOME = 16;

class MemoryDump extends DumpBytes {
  readonly size: number;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    super('dump');
    this.#bytes = bytes;
    this.size = bytes.length;
  }

  read(into: Uint8Array, position: number, length: number, offset: number): number {
    const piece = this.#bytes.subarray(offset, offset + length);
    into.set(piece, position);
    return piece.length;
  }
}

export const seeds: () => Buffer[] = dumps;

export function read(bytes: Buffer): void {
  const { pages } = readDump(new MemoryDump(bytes));
  const page = new Uint8Array(4096);
  for (const { first, count } of pages.regions().slice(0, SOME)) {
    for (let frame = 0; frame < Math.min(count, SOME); frame++)
      pages.read(first + frame, 0, page.length, page, 0);
  }
}
