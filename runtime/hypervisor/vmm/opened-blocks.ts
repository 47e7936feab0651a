import type { RamSource } from '../qemu/ram.ts';
import { type BlockPart, type PagePlace, possibleRoots } from './guest-tables.ts';
import type { MachineView } from './machine-view.ts';
import type { RamBlock } from './ram-blocks.ts';

/** Memory of a process that we can read and write. */
export interface OpenedBlock extends BlockPart {
  readonly mapping: RamSource['mapping'];
}

/** Memory that is opened to look where it belongs. What nobody takes is closed. */
export class OpenedBlocks {
  readonly #view: MachineView;
  readonly #kept: ReadonlyMap<string, OpenedBlock>;
  readonly #opened = new Map<string, OpenedBlock>();
  readonly #roots = new Map<string, readonly number[]>();

  /** @param kept blocks that are open already, by {@link keyOfBlock}; they stay open */
  constructor(view: MachineView, kept: ReadonlyMap<string, OpenedBlock> = new Map()) {
    this.#view = view;
    this.#kept = kept;
  }

  part(block: RamBlock): OpenedBlock {
    const key = keyOfBlock(block);
    const known = this.#opened.get(key) ?? this.#kept.get(key);
    if (known !== undefined) return known;
    const opened = { ...this.#view.open(block), length: block.length };
    this.#opened.set(key, opened);
    return opened;
  }

  /**
   * What may be topmost tables in these blocks, of which each is a part.
   * @param total bytes of RAM that the guest started with
   */
  roots(blocks: readonly RamBlock[], total: number): PagePlace[] {
    return blocks.flatMap((block, part) => this.#rootsOf(block, total).map((offset) => ({ part, offset })));
  }

  /** Leaves blocks to their owner, who closes them. */
  take(blocks: readonly RamBlock[]): void {
    for (const block of blocks) this.#opened.delete(keyOfBlock(block));
  }

  [Symbol.dispose](): void {
    for (const { mapping } of this.#opened.values()) mapping?.close();
  }

  #rootsOf(block: RamBlock, total: number): readonly number[] {
    const key = keyOfBlock(block);
    const known = this.#roots.get(key);
    if (known !== undefined) return known;
    const pages = this.#view.filled(block.start, block.length);
    const roots = possibleRoots(this.part(block), pages, total);
    this.#roots.set(key, roots);
    return roots;
  }
}

/** Equal for blocks that are the same memory. */
export function keyOfBlock({ start, length, map: { major, minor, inode } }: RamBlock): string {
  return `${start}+${length} ${major}:${minor}:${inode}`;
}
