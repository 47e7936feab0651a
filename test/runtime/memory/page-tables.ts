import type { FrameImage } from '../../../runtime/hypervisor/fake/image.ts';
import { FRAME_SIZE } from '../../../runtime/hypervisor/frame.ts';

export const PRESENT = 1n;
export const WRITABLE = 2n;
export const USER = 4n;
export const LARGE = 0x80n;
export const NO_EXECUTE = 1n << 63n;

/** Builds page tables in a fake image: a plain model of what the processor reads, written for tests only. */
export class PageTables {
  readonly root: number;
  readonly levels: 4 | 5;
  readonly #image: FrameImage;
  #next: number;

  /** @param firstTable frame of the topmost table; more are taken after it */
  constructor(image: FrameImage, firstTable: number, levels: 4 | 5 = 4) {
    this.#image = image;
    this.#next = firstTable + 1;
    this.root = firstTable * FRAME_SIZE;
    this.levels = levels;
  }

  /** Maps one page; `level` 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB. */
  map(address: bigint, frame: number, level: 1 | 2 | 3 = 1, flags = PRESENT | WRITABLE): void {
    let table = this.root;
    for (let at: number = this.levels; at > level; at--) {
      const slot = this.slot(table, address, at);
      let entry = this.entry(slot);
      if (!(entry & PRESENT)) {
        entry = (BigInt(this.#next++) << 12n) | PRESENT | WRITABLE | USER;
        this.setEntry(slot, entry);
      }
      table = Number(entry & 0x000f_ffff_ffff_f000n);
    }
    const size = level > 1 ? LARGE : 0n;
    this.setEntry(this.slot(table, address, level), (BigInt(frame) << 12n) | flags | size);
  }

  /** Physical address of the entry for `address` at `level`, following present entries. */
  find(address: bigint, level: number): number {
    let table = this.root;
    for (let at: number = this.levels; at > level; at--) {
      table = Number(this.entry(this.slot(table, address, at)) & 0x000f_ffff_ffff_f000n);
    }
    return this.slot(table, address, level);
  }

  slot(table: number, address: bigint, level: number): number {
    return table + Number((address >> BigInt(12 + 9 * (level - 1))) & 0x1ffn) * 8;
  }

  entry(physical: number): bigint {
    return Buffer.from(this.#image.load(physical, 8)).readBigUInt64LE();
  }

  setEntry(physical: number, entry: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(entry);
    this.#image.store(physical, bytes);
  }
}
