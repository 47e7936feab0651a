import type { RamSource } from '../qemu/ram.ts';
import { filledPages, openBlock, type PageRun, type RamBlock, ramBlocks } from './ram-blocks.ts';

/** What a machine's process shows of its memory, by whatever right we look at it. */
export interface MachineView {
  readonly pid: number;
  /** See {@link ramBlocks}. */
  blocks(): RamBlock[];
  /** See {@link filledPages}. */
  filled(start: number, length: number): Generator<PageRun>;
  /** See {@link openBlock}. */
  open(block: RamBlock): Pick<RamSource, 'memory' | 'mapping'> & { readonly address: number };
}

/** By our own right: a root's, or that of the user who runs the process. */
export function ownView(pid: number): MachineView {
  return {
    pid,
    blocks: () => ramBlocks(pid),
    filled: (start, length) => filledPages(pid, start, length),
    open: (block) => openBlock(pid, block),
  };
}
