import { DomschedError } from '../../error.ts';
import { hostProcess } from '../../host-process.ts';
import { FRAME_SIZE, type GuestFrame } from '../frame.ts';
import { QemuRam, type RamSource } from '../qemu/ram.ts';
import type { FrameRegion } from '../types.ts';
import { nodeBytes, ramBytes } from './command-line.ts';
import { type BlockPart, possibleRoots, proves, startOf } from './guest-tables.ts';
import type { MachineProcess } from './machine-process.ts';
import { type Piece, piecesOf, placements } from './place-ram.ts';
import { filledPages, openBlock, type RamBlock, ramBlocks } from './ram-blocks.ts';

/** How often to try, because a running guest changes its tables while we follow them. */
const ATTEMPTS = 3;
/** Most orders of memory nodes to try: of four nodes of one size all of them. */
const MAX_ARRANGEMENTS = 24;
/** The most that page tables can hold (Intel SDM vol. 3A, 4.1.4): without the monitor the real number is unknown. */
const PHYSICAL_BITS = 52;

/** Frames of a guest whose process was found. */
export class ProcessRam extends QemuRam {
  readonly #pid: number;
  readonly #blocks: readonly RamBlock[];
  readonly #pieces: readonly Piece[];

  /** @param blocks its RAM in the process, with a source for each */
  constructor(
    name: string,
    pid: number,
    blocks: readonly RamBlock[],
    sources: readonly RamSource[],
    pieces: readonly Piece[],
  ) {
    super(name, PHYSICAL_BITS, sources);
    this.#pid = pid;
    this.#blocks = blocks;
    this.#pieces = pieces;
  }

  /** Frames of a region that the guest has ever used, ascending. */
  *filled({ first, count }: FrameRegion<GuestFrame>): Generator<FrameRegion<GuestFrame>> {
    const piece = this.#pieces.find((each) => first >= each.first && first < each.first + each.count);
    if (piece === undefined) return;
    const start = this.#blocks[piece.part]!.start + piece.offset + (first - piece.first) * FRAME_SIZE;
    for (const run of filledPages(this.#pid, start, count * FRAME_SIZE)) {
      yield { first: (first + run.first) as GuestFrame, count: run.count };
    }
  }
}

/**
 * Finds a guest's RAM in the process that runs it, and the place of each piece in the guest, without asking that
 * process: mappings are candidates, and the page tables of the guest's own kernel decide.
 * @throws DomschedError `kernel-unidentified` when none is proved; `domain-gone`; `host-unreachable` when we may not
 *   look
 */
export function attachRam(machine: MachineProcess): ProcessRam {
  const { pid, name } = machine;
  const choices = candidates(machine);
  if (choices.length === 0) throw noMemory(machine);
  let sawRoots = false;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    using opened = new OpenedBlocks(pid);
    for (const blocks of choices) {
      const found = opened.place(blocks);
      sawRoots ||= found.sawRoots;
      if (found.pieces === undefined) continue;
      return new ProcessRam(name, pid, blocks, opened.take(blocks, found.pieces), found.pieces);
    }
  }
  throw new DomschedError(
    'kernel-unidentified',
    sawRoots
      ? `${name}: where its memory lies in the guest is not proved by its own page tables (plugged memory, or a memory ` +
          'node that no program uses?); give it a QMP socket of ours: -qmp unix:/run/domsched/NAME.sock,server=on,wait=off'
      : `${name}: no kernel's page tables are in its memory: it is still booting, or no 64-bit Linux`,
    { domain: name, pid },
  );
}

interface OpenedBlock extends BlockPart {
  readonly mapping: RamSource['mapping'];
  /** Offsets of what may be topmost tables. */
  readonly roots: readonly number[];
}

/** Memory that is opened to look where it belongs. What nobody takes is closed. */
class OpenedBlocks {
  readonly #pid: number;
  /** By place in the process. */
  readonly #opened = new Map<string, OpenedBlock>();

  constructor(pid: number) {
    this.#pid = pid;
  }

  /** @param blocks a guest's RAM in its order, perhaps */
  place(blocks: readonly RamBlock[]): { sawRoots: boolean; pieces: readonly Piece[] | undefined } {
    const total = blocks.reduce((sum, { length }) => sum + length, 0);
    const parts = blocks.map((block) => this.#open(block, total));
    const roots = parts.flatMap((part, index) => part.roots.map((at) => startOf(parts, index) + at));
    const guest = { parts, length: total };
    const placement = placements(total).find((each) => proves(guest, each, roots));
    return { sawRoots: roots.length > 0, pieces: placement && piecesOf(placement, parts) };
  }

  /** Sources of what was placed, which are their owner's to close from then on. */
  take(blocks: readonly RamBlock[], pieces: readonly Piece[]): RamSource[] {
    return blocks.map((block, part) => {
      const { memory, mapping, address } = this.#opened.get(placeOf(block))!;
      this.#opened.delete(placeOf(block));
      const own = pieces.filter((piece) => piece.part === part);
      const segments = own.map(({ first, count, offset }) => ({ first, count, address: address + offset }));
      return { memory, mapping, segments };
    });
  }

  [Symbol.dispose](): void {
    for (const { mapping } of this.#opened.values()) mapping?.close();
  }

  #open(block: RamBlock, total: number): OpenedBlock {
    const known = this.#opened.get(placeOf(block));
    if (known !== undefined) return known;
    const opened = { ...openBlock(this.#pid, block), length: block.length, roots: [] as number[] };
    this.#opened.set(placeOf(block), opened);
    opened.roots.push(...possibleRoots(opened, filledPages(this.#pid, block.start, block.length), total));
    return opened;
  }
}

const placeOf = ({ start, length }: RamBlock) => `${start}+${length}`;

/**
 * What may be the RAM, in the guest's order. If the command line gives a size, a bigger block is cut: to its end, or a file
 * to its beginning. With memory nodes there is a block for each; those of one size may be any of them.
 */
function candidates({ pid, args, isQemu }: MachineProcess): (readonly RamBlock[])[] {
  const blocks = ramBlocks(pid);
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

function noMemory({ pid, started, name }: MachineProcess): DomschedError {
  if (hostProcess(pid)?.started !== started) {
    return new DomschedError('domain-gone', `${name} has ended`, { domain: name, pid });
  }
  return new DomschedError(
    'host-unreachable',
    `${name}: process ${pid} shows no memory that could be its guest's; run as root on the host itself`,
    { domain: name, pid },
  );
}
