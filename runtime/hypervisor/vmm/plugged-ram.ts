import { FRAME_SIZE } from '../frame.ts';
import { type PagePlace, provePlacement, provePlugged } from './guest-tables.ts';
import type { MachineView } from './machine-view.ts';
import { keyOfBlock, type OpenedBlock, OpenedBlocks } from './opened-blocks.ts';
import { type PhysicalRange, type Piece, type Placement, piecesOf } from './place-ram.ts';
import type { RamBlock } from './ram-blocks.ts';

/** Most pieces of plugged memory; QEMU has 256 slots. */
const MAX_PLUGGED = 32;

/** RAM that a guest started with. */
export interface BootRam {
  readonly blocks: readonly RamBlock[];
  readonly parts: readonly OpenedBlock[];
  readonly placement: Placement;
}

/** Memory that was plugged into a running guest, as a DIMM is, and its physical address there. */
export interface PluggedRam {
  readonly block: RamBlock;
  readonly part: OpenedBlock;
  readonly at: number;
}

/**
 * Finds plugged memory: the kernel's mapping of all memory says where the guest has some, and tables of programs in it
 * which memory of the process that is. Where that is not proved, or by two blocks, it is left out: the guest may not have
 * used it yet.
 * @param before what was found by an earlier look and is open already; whatever is not found again is its owner's to close
 */
export function findPlugged(view: MachineView, boot: BootRam, before: readonly PluggedRam[]): PluggedRam[] {
  const { blocks, parts, placement } = boot;
  const kept = new Map([
    ...blocks.map((block, index) => [keyOfBlock(block), parts[index]!] as const),
    ...before.map(({ block, part }) => [keyOfBlock(block), part] as const),
  ]);
  using opened = new OpenedBlocks(view, kept);
  const { total } = placement;
  const roots = opened.roots(blocks, total);
  const proof = provePlacement(parts, placement, roots);
  if (proof === undefined || proof.plugged.length === 0) return [];
  const known = [...parts];
  const pieces: Piece[] = [...piecesOf(placement, parts)];
  const found: PluggedRam[] = [];
  const others = view.blocks().filter((block) => !blocks.some((own) => overlap(own, block)));
  const proves = (block: RamBlock, at: number) => {
    const part = known.length;
    const own: readonly PagePlace[] = opened.roots([block], total).map(({ offset }) => ({ part, offset }));
    const piece = pieceFor(block, at, part);
    return provePlugged([...known, opened.part(block)], [...pieces, piece], [...roots, ...own], proof);
  };
  for (let again = true; again && found.length < MAX_PLUGGED; ) {
    again = false;
    for (const { place, room } of freePlaces(proof.plugged, found)) {
      const free = others.filter((block) => !found.some((other) => overlap(other.block, block)));
      const fitting = free.flatMap((block) => fit(block, place, room) ?? []);
      const [one, ...more] = fitting.filter(({ block, at }) => proves(block, at));
      if (one === undefined || more.length > 0) continue;
      const part = known.length;
      found.push({ ...one, part: opened.part(one.block) });
      roots.push(...opened.roots([one.block], total).map(({ offset }) => ({ part, offset })));
      known.push(opened.part(one.block));
      pieces.push(pieceFor(one.block, one.at, part));
      again = true;
      break;
    }
  }
  opened.take(found.map(({ block }) => block));
  return found;
}

/** @param part its place among all parts */
export function pieceFor({ length }: RamBlock, at: number, part: number): Piece {
  return { first: at / FRAME_SIZE, count: length / FRAME_SIZE, part, offset: 0 };
}

type End = 'start' | 'end';

/** Beginnings and ends of plugged memory of which it is not known yet what is there. */
function freePlaces(
  ranges: readonly PhysicalRange[],
  found: readonly PluggedRam[],
): { place: { at: number; end: End }; room: number }[] {
  return ranges.flatMap(({ start, end }) => {
    const inside = found.filter(({ at }) => at >= start && at < end).sort((a, b) => a.at - b.at);
    const gaps: PhysicalRange[] = [];
    let from = start;
    for (const { at, block } of inside) {
      if (at > from) gaps.push({ start: from, end: at });
      from = at + block.length;
    }
    if (from < end) gaps.push({ start: from, end });
    return gaps.flatMap((gap) => {
      const room = gap.end - gap.start;
      return [
        { place: { at: gap.start, end: 'start' as const }, room },
        { place: { at: gap.end, end: 'end' as const }, room },
      ];
    });
  });
}

/** @returns a block put there; one that is longer than the room begins with other memory, as its end is always its own */
function fit(
  block: RamBlock,
  { at, end }: { at: number; end: End },
  room: number,
): { block: RamBlock; at: number } | undefined {
  if (block.length > room) {
    if (block.map.inode !== 0) return undefined;
    const cut = { ...block, start: block.start + block.length - room, length: room };
    return { block: cut, at: end === 'start' ? at : at - room };
  }
  return { block, at: end === 'start' ? at : at - block.length };
}

function overlap(one: RamBlock, other: RamBlock): boolean {
  return one.start < other.start + other.length && other.start < one.start + one.length;
}
