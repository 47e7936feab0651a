import { nodeBytes, ramBytes } from './command-line.ts';
import type { MachineProcess } from './machine-process.ts';
import type { RamBlock } from './ram-blocks.ts';

/** Most orders of memory nodes to try: of four nodes of one size all of them. */
const MAX_ARRANGEMENTS = 24;

/**
 * What may be the RAM, in the guest's order. If the command line gives a size, a bigger block is cut: to its end, or a file
 * to its beginning. With memory nodes there is a block for each; those of one size may be any of them.
 */
export function candidates(
  { args, isQemu }: Pick<MachineProcess, 'args' | 'isQemu'>,
  blocks: readonly RamBlock[],
): (readonly RamBlock[])[] {
  const nodes = isQemu ? nodeBytes(args) : [];
  const wanted = isQemu ? ramBytes(args) : undefined;
  if (wanted === undefined) return blocks.map((block) => [block]);
  if (nodes.length > 1) return [...arrangements(blocks, nodes)].slice(0, MAX_ARRANGEMENTS);
  return blocks.filter(({ length }) => length >= wanted).map((block) => [cut(block, wanted)]);
}

/** The part before it in one mapping is other memory; QEMU leaves an inaccessible page behind it. */
function cut(block: RamBlock, length: number): RamBlock {
  if (block.length === length) return block;
  return {
    ...block,
    start: block.map.inode === 0 ? block.start + block.length - length : block.start,
    length,
  };
}

/** All ways to give each node a block of its own that is big enough, those first that fit exactly. */
function* arrangements(
  blocks: readonly RamBlock[],
  [node, ...others]: readonly number[],
): Generator<readonly RamBlock[]> {
  if (node === undefined) {
    yield [];
    return;
  }
  const fitting = blocks.filter(({ length }) => length >= node).sort((a, b) => a.length - b.length);
  for (const block of fitting) {
    const rest = blocks.filter((other) => other !== block);
    for (const more of arrangements(rest, others)) yield [cut(block, node), ...more];
  }
}
