import { FRAME_SIZE } from '../frame.ts';
import { addressOf, MAX_RANGES_PER_CALL, type ProcessMemory, RangeList } from '../process-memory.ts';
import { blockOffset, FOUR_GIB, type Piece, type Placement, piecesOf } from './place-ram.ts';

/** Bits of the low word of a page table's entry (Intel SDM vol. 3A, 4.5). */
const PRESENT = 1;
const WRITABLE = 2;
const LARGE = 0x80;
/** Bits 12 to 51 are an address; those above may be a protection key or the system's own. */
const ADDRESS_LOW = 0xffff_f000;
const ADDRESS_HIGH = 0x000f_ffff;

const ENTRIES = 512;
/** Slots through which x86-64 kernels map themselves: in the topmost table, and in their table of 1 GiB windows. */
const KERNEL_SLOT = 511;
const IMAGE_SLOT = 510;
const GIB = 2 ** 30;
/** Most tables to read for one root (a direct map of 1 TiB in pages of 2 MiB has 1,024), and for one placement. */
const MAX_TABLES = 8_192;
const MAX_ALL_TABLES = 32_768;
/** Most pages that may be a topmost table, of which every program has one. */
const MAX_ROOTS = 1_024;
/** Most bytes that firmware and the kernel leave unmapped below the hole. */
const MAX_RESERVED = 256 * 1024 * 1024;
/** A kernel takes pages with code out of its mapping, and those at the end may be among them. */
const MAX_UNMAPPED = 16 * 1024 * 1024;
/** Tables above 4 GiB that must look like tables before that part is believed. */
const ENOUGH = 4;
/** Most mappings of all memory to look at; one from before the kernel was up may be left. */
const MAX_MAPS = 8;

/** Memory of a process that contains a guest's RAM, or one memory node of it. */
export interface BlockPart {
  readonly memory: ProcessMemory;
  /** Address of its first byte in that memory. */
  readonly address: number;
  readonly length: number;
}

/** All RAM of a guest: its parts follow each other. */
export interface GuestBlock {
  readonly parts: readonly BlockPart[];
  readonly length: number;
}

/** One page table of the guest, read in one go. */
type Table = Uint32Array;

/** Reads tables of the guest by physical address under an assumption of where its RAM is. */
class TableReader {
  readonly placement: Placement;
  readonly #block: GuestBlock;
  #reads = 0;
  #all = 0;

  constructor(block: GuestBlock, placement: Placement) {
    this.#block = block;
    this.placement = placement;
  }

  /** @returns undefined if it is not RAM or was never written, and when too many were read */
  read(physical: number): Table | undefined {
    const offset = blockOffset(this.placement, physical);
    if (offset < 0 || this.#reads >= MAX_TABLES || this.#all >= MAX_ALL_TABLES) return undefined;
    this.#reads += 1;
    this.#all += 1;
    const bytes = new Uint8Array(new ArrayBuffer(FRAME_SIZE));
    return readInto(this.#block, offset, bytes) ? new Uint32Array(bytes.buffer) : undefined;
  }

  /** Starts another root, which has its own limit. */
  begin(): void {
    this.#reads = 0;
  }

  /** Whether all entries of a table are plausible: none leads out of the guest's RAM, except large pages of devices. */
  isTable(table: Table): boolean {
    let present = 0;
    for (let i = 0; i < ENTRIES; i++) {
      if (!isPresent(table, i)) continue;
      present += 1;
      if (!isLarge(table, i) && blockOffset(this.placement, addressAt(table, i)) < 0) return false;
    }
    return present > 0;
  }
}

function readInto({ parts }: GuestBlock, offset: number, bytes: Uint8Array): boolean {
  const index = partAt(parts, offset);
  const part = parts[index]!;
  const local = new RangeList();
  const remote = new RangeList();
  local.set(0, addressOf(bytes), bytes.length);
  remote.set(0, part.address + offset - startOf(parts, index), bytes.length);
  return part.memory.read(local, 1, remote, 1) === bytes.length;
}

/** Index of the part that an offset in the block is in. */
function partAt(parts: readonly BlockPart[], offset: number): number {
  return parts.findIndex(({ length }, index) => offset < startOf(parts, index) + length);
}

/** Offset in the block of a part's first byte. */
export function startOf(parts: readonly { readonly length: number }[], index: number): number {
  return parts.slice(0, index).reduce((sum, { length }) => sum + length, 0);
}

const isPresent = (table: Table, i: number) => (table[2 * i]! & PRESENT) !== 0;
const isLarge = (table: Table, i: number) => (table[2 * i]! & LARGE) !== 0;
const addressAt = (table: Table, i: number) =>
  ((table[2 * i]! & ADDRESS_LOW) >>> 0) + (table[2 * i + 1]! & ADDRESS_HIGH) * 2 ** 32;

/**
 * Byte offsets in a part of pages that may be a kernel's topmost table, judged by their last entry: in all x86-64 Linux
 * kernels it leads to the kernel's own mapping.
 * @param total bytes of all parts
 */
export function possibleRoots(
  part: BlockPart,
  pages: Iterable<{ readonly first: number; readonly count: number }>,
  total: number,
): number[] {
  const roots: number[] = [];
  for (const at of lastEntries(part, pages, total)) {
    roots.push(at);
    if (roots.length === MAX_ROOTS) break;
  }
  return roots;
}

function* lastEntries(
  part: BlockPart,
  pages: Iterable<{ readonly first: number; readonly count: number }>,
  total: number,
): Generator<number> {
  const words = new Uint32Array(new ArrayBuffer(8 * MAX_RANGES_PER_CALL));
  const local = new RangeList();
  const remote = new RangeList();
  const offsets: number[] = [];
  const base = addressOf(new Uint8Array(words.buffer));
  const flush = function* () {
    for (let from = 0; from < offsets.length; ) {
      const count = offsets.length - from;
      for (let i = 0; i < count; i++) remote.set(i, part.address + offsets[from + i]! + FRAME_SIZE - 8, 8);
      local.set(0, base, 8 * count);
      const copied = Math.floor(part.memory.read(local, 1, remote, count) / 8);
      for (let i = 0; i < copied; i++) {
        const [low, high] = [words[2 * i]!, words[2 * i + 1]!];
        const fits = (low & (PRESENT | WRITABLE | LARGE)) === (PRESENT | WRITABLE) && high <= ADDRESS_HIGH;
        const address = ((low & ADDRESS_LOW) >>> 0) + high * 2 ** 32;
        if (fits && address > 0 && address < FOUR_GIB + total) yield offsets[from + i]!;
      }
      // Leave out the one that could not be read.
      from += copied + 1;
      if (copied === count) break;
    }
    offsets.length = 0;
  };
  for (const { first, count } of pages) {
    for (let i = 0; i < count; i++) {
      offsets.push((first + i) * FRAME_SIZE);
      if (offsets.length === MAX_RANGES_PER_CALL) yield* flush();
    }
  }
  yield* flush();
}

/** Limits of the guest's memory in a kernel's tables. */
export interface DirectMap {
  /** Byte after the last mapped one below 4 GiB, and after the last of all. */
  readonly lowEnd: number;
  readonly end: number;
}

/**
 * Follows a possible topmost table of a kernel, four or five levels deep, to its mapping of all memory: the one in
 * which virtual and physical address differ by the same number of whole GiB throughout.
 * @returns undefined if the table does not have one
 */
function directMap(reader: TableReader, root: Table): DirectMap | undefined {
  const kernel = isPresent(root, KERNEL_SLOT) ? reader.read(addressAt(root, KERNEL_SLOT)) : undefined;
  if (kernel === undefined) return undefined;
  const levels = isImageWindow(reader, kernel) ? 4 : isFifth(reader, kernel) ? 5 : 0;
  if (levels === 0) return undefined;
  /** Mapped bytes and their end, keyed by the difference of virtual and physical address. */
  const maps = new Map<number, { bytes: number; lowEnd: number; end: number }>();
  const note = (virtual: number, physical: number, size: number) => {
    const difference = virtual - physical;
    if (difference % GIB !== 0) return;
    const map = maps.get(difference) ?? { bytes: 0, lowEnd: 0, end: 0 };
    map.bytes += size;
    map.end = Math.max(map.end, physical + size);
    if (physical < FOUR_GIB) map.lowEnd = Math.max(map.lowEnd, Math.min(FOUR_GIB, physical + size));
    maps.set(difference, map);
  };
  // Walks the upper half without the kernel's own image; addresses count from the start of that half.
  const walk = (table: Table, level: number, base: number, from: number): void => {
    const size = FRAME_SIZE * ENTRIES ** (level - 1);
    for (let i = from; i < (level === levels ? KERNEL_SLOT : ENTRIES); i++) {
      if (!isPresent(table, i)) continue;
      const virtual = base + (i - from) * size;
      if (level === 1 || (level <= 3 && isLarge(table, i))) {
        note(virtual, Math.floor(addressAt(table, i) / size) * size, size);
        continue;
      }
      const next = reader.read(addressAt(table, i));
      if (next !== undefined) walk(next, level - 1, virtual, 0);
    }
  };
  walk(root, levels, 0, ENTRIES / 2);
  const [biggest] = [...maps.values()].sort((a, b) => b.bytes - a.bytes);
  return biggest;
}

/** Whether a table has the window of the kernel's image: its last but one GiB, of large pages or tables of them. */
function isImageWindow(reader: TableReader, table: Table): boolean {
  if (!isPresent(table, IMAGE_SLOT) || isLarge(table, IMAGE_SLOT)) return false;
  const image = reader.read(addressAt(table, IMAGE_SLOT));
  return image !== undefined && reader.isTable(image);
}

function isFifth(reader: TableReader, table: Table): boolean {
  if (!isPresent(table, KERNEL_SLOT) || isLarge(table, KERNEL_SLOT)) return false;
  const next = reader.read(addressAt(table, KERNEL_SLOT));
  return next !== undefined && isImageWindow(reader, next);
}

/** Tables of programs in one piece of memory that look like tables, and others. */
interface TableCounts {
  good: number;
  bad: number;
}

/**
 * Whether a placement is that of the guest's own kernel: the kernel's mapping of all memory ends where the placement
 * does, below and above the hole, and above it, and in every memory node but that of the kernel's own tables, there are
 * tables of programs where their topmost tables say.
 * @param roots byte offsets in the block of possible topmost tables; some are stale, as freed tables are not wiped
 */
export function proves(block: GuestBlock, placement: Placement, roots: Iterable<number>): boolean {
  const reader = new TableReader(block, placement);
  const pieces = piecesOf(placement, block.parts);
  const isAbove = (piece: Piece) => piece.first * FRAME_SIZE >= FOUR_GIB;
  const evidence = new Map<Piece, TableCounts>();
  for (const piece of pieces) {
    const decides = isAbove(piece) || !pieces.some((other) => other.part === piece.part && isAbove(other));
    if (decides) evidence.set(piece, { good: 0, bad: 0 });
  }
  const pieceAt = (physical: number) => {
    const frame = physical / FRAME_SIZE;
    return pieces.find(({ first, count }) => frame >= first && frame < first + count);
  };
  let [kernel, maps] = [-1, 0];
  for (const at of roots) {
    const bytes = new Uint8Array(new ArrayBuffer(FRAME_SIZE));
    if (!readInto(block, at, bytes)) continue;
    const root = new Uint32Array(bytes.buffer);
    reader.begin();
    if (kernel < 0) {
      const map = directMap(reader, root);
      if (map === undefined) continue;
      maps += 1;
      if (isWhole(map, placement)) kernel = addressAt(root, KERNEL_SLOT);
      else if (maps === MAX_MAPS) return false;
      else continue;
      const own = pieceAt(kernel);
      if (own !== undefined && !isAbove(own)) evidence.delete(own);
    }
    // A page that leads elsewhere than to that kernel is not one of its programs but text, pictures or other data.
    if (evidence.size > 0 && addressAt(root, KERNEL_SLOT) === kernel)
      countPrograms(reader, root, (address) => evidence.get(pieceAt(address)!));
    if ([...evidence.values()].every(({ good, bad }) => good >= ENOUGH && bad < good / 2)) return true;
  }
  return false;
}

function isWhole({ lowEnd, end }: DirectMap, { low, total }: Placement): boolean {
  if (lowEnd > low || lowEnd <= low - MAX_RESERVED) return false;
  const top = low < total ? FOUR_GIB + total - low : low;
  return end <= top && (low === total || end > top - MAX_UNMAPPED);
}

/** Counts whether tables of the lower half, two levels of them, look like tables, each for the piece that it is in. */
function countPrograms(
  reader: TableReader,
  root: Table,
  evidenceAt: (physical: number) => TableCounts | undefined,
): void {
  const look = (table: Table, entries: number, levels: number): void => {
    for (let i = 0; i < entries; i++) {
      if (!isPresent(table, i) || isLarge(table, i)) continue;
      const address = addressAt(table, i);
      const next = reader.read(address);
      const good = next !== undefined && reader.isTable(next);
      const evidence = evidenceAt(address);
      if (evidence !== undefined) evidence[good ? 'good' : 'bad'] += 1;
      if (good && levels > 1) look(next, ENTRIES, levels - 1);
    }
  };
  look(root, ENTRIES / 2, 2);
}
