import { FRAME_SIZE } from '../frame.ts';
import { addressOf, MAX_RANGES_PER_CALL, type RangeCopier, RangeList } from '../process-memory.ts';
import {
  endOf,
  FOUR_GIB,
  type PhysicalRange,
  type Piece,
  type Placement,
  pieceAt,
  piecesOf,
  placements,
  pluggedStart,
} from './place-ram.ts';

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
/** Most ranges of one mapping; its pieces above 4 GiB are ordered by address. */
const MAX_RANGES = 256;

/** Memory of a process that contains a guest's RAM, or one memory node of it. */
export interface BlockPart {
  readonly memory: RangeCopier;
  /** Address of its first byte in that memory. */
  readonly address: number;
  readonly length: number;
}

/** One page table of the guest, read in one go. */
type Table = Uint32Array;

/** Reads tables of the guest by physical address under an assumption of where its RAM is. */
class TableReader {
  readonly pieces: readonly Piece[];
  readonly #parts: readonly BlockPart[];
  /** Memory that the guest has, wherever it is in the process. */
  #plugged: readonly PhysicalRange[] = [];
  #reads = 0;
  #all = 0;

  constructor(parts: readonly BlockPart[], pieces: readonly Piece[], plugged: readonly PhysicalRange[] = []) {
    this.#parts = parts;
    this.pieces = pieces;
    this.#plugged = plugged;
  }

  set plugged(ranges: readonly PhysicalRange[]) {
    this.#plugged = ranges;
  }

  /** @returns undefined if it is not RAM that we have or was never written, and when too many were read */
  read(physical: number): Table | undefined {
    const index = pieceAt(this.pieces, physical);
    if (index < 0 || this.#reads >= MAX_TABLES || this.#all >= MAX_ALL_TABLES) return undefined;
    this.#reads += 1;
    this.#all += 1;
    const { first, part, offset } = this.pieces[index]!;
    return readPage(this.#parts[part]!, offset + physical - first * FRAME_SIZE);
  }

  /** Reads a page of a part. */
  readAt({ part, offset }: PagePlace): Table | undefined {
    return readPage(this.#parts[part]!, offset);
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
      if (!isLarge(table, i) && !this.#isRam(addressAt(table, i))) return false;
    }
    return present > 0;
  }

  #isRam(physical: number): boolean {
    if (pieceAt(this.pieces, physical) >= 0) return true;
    return this.#plugged.some(({ start, end }) => physical >= start && physical < end);
  }
}

function readPage(part: BlockPart, offset: number): Table | undefined {
  const bytes = new Uint8Array(new ArrayBuffer(FRAME_SIZE));
  const local = new RangeList();
  const remote = new RangeList();
  local.set(0, addressOf(bytes), bytes.length);
  remote.set(0, part.address + offset, bytes.length);
  return part.memory.read(local, 1, remote, 1, bytes) === bytes.length
    ? new Uint32Array(bytes.buffer)
    : undefined;
}

/** A page of a guest's memory by where it is in the process. */
export interface PagePlace {
  readonly part: number;
  /** Bytes from the start of that part. */
  readonly offset: number;
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
  const bytes = new Uint8Array(words.buffer);
  const local = new RangeList();
  const remote = new RangeList();
  const offsets: number[] = [];
  const base = addressOf(bytes);
  const flush = function* () {
    for (let from = 0; from < offsets.length; ) {
      const count = offsets.length - from;
      for (let i = 0; i < count; i++) remote.set(i, part.address + offsets[from + i]! + FRAME_SIZE - 8, 8);
      local.set(0, base, 8 * count);
      const copied = Math.floor(part.memory.read(local, 1, remote, count, bytes) / 8);
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
  /** Byte after the last mapped one below 4 GiB. */
  readonly lowEnd: number;
  /** What is mapped above 4 GiB, ascending. */
  readonly high: readonly PhysicalRange[];
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
  /** Mapped bytes and their places, keyed by the difference of virtual and physical address. */
  const maps = new Map<number, { bytes: number; lowEnd: number; high: { start: number; end: number }[] }>();
  const note = (virtual: number, physical: number, size: number) => {
    const difference = virtual - physical;
    if (difference % GIB !== 0) return;
    const map = maps.get(difference) ?? { bytes: 0, lowEnd: 0, high: [] };
    map.bytes += size;
    if (physical < FOUR_GIB) map.lowEnd = Math.max(map.lowEnd, Math.min(FOUR_GIB, physical + size));
    const [start, end] = [Math.max(physical, FOUR_GIB), physical + size];
    const last = map.high.at(-1);
    if (last?.end === start) last.end = end;
    else if (end > start && map.high.length < MAX_RANGES) map.high.push({ start, end });
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

/** What the tables of a guest's kernel say, once a placement is proved by them. */
export interface PlacementProof {
  /** Physical address of the table that all of that kernel's topmost tables have for its own half. */
  readonly kernel: number;
  /** Memory that the guest has beside what it started with, ascending. */
  readonly plugged: readonly PhysicalRange[];
}

/**
 * Whether a placement is that of the guest's own kernel: the kernel's mapping of all memory ends where the placement
 * does, below and above the hole, and above it, and in every memory node but that of the kernel's own tables, there are
 * tables of programs where their topmost tables say. Memory that was plugged later lies apart, behind a whole GiB.
 * @param roots possible topmost tables; some are stale, as freed tables are not wiped
 * @returns undefined if it is not proved
 */
export function provePlacement(
  parts: readonly BlockPart[],
  placement: Placement,
  roots: Iterable<PagePlace>,
): PlacementProof | undefined {
  const pieces = piecesOf(placement, parts);
  const reader = new TableReader(parts, pieces);
  const isAbove = (piece: Piece) => piece.first * FRAME_SIZE >= FOUR_GIB;
  const evidence = new Map<Piece, TableCounts>();
  for (const piece of pieces) {
    const decides = isAbove(piece) || !pieces.some((other) => other.part === piece.part && isAbove(other));
    if (decides) evidence.set(piece, { good: 0, bad: 0 });
  }
  const found = (physical: number) => pieces[pieceAt(pieces, physical)];
  let kernel = -1;
  let plugged: readonly PhysicalRange[] = [];
  let maps = 0;
  for (const at of roots) {
    const root = reader.readAt(at);
    if (root === undefined) continue;
    reader.begin();
    if (kernel < 0) {
      const map = directMap(reader, root);
      if (map === undefined) continue;
      maps += 1;
      const beside = bestBesides(map, placement);
      if (beside !== undefined) kernel = addressAt(root, KERNEL_SLOT);
      else if (maps === MAX_MAPS) return undefined;
      else continue;
      plugged = beside;
      reader.plugged = plugged;
      const own = found(kernel);
      if (own !== undefined && !isAbove(own)) evidence.delete(own);
    }
    // A page that leads elsewhere than to that kernel is not one of its programs but text, pictures or other data.
    if (evidence.size > 0 && addressAt(root, KERNEL_SLOT) === kernel)
      countPrograms(reader, root, (address) => evidence.get(found(address)!));
    if ([...evidence.values()].every(isEnough)) return { kernel, plugged };
  }
  return undefined;
}

/**
 * Whether there are tables of a 64-bit kernel at all, wherever its memory lies: an unproved placement without them says
 * that none is up, or that the guest is another one.
 */
export function hasKernel(
  parts: readonly BlockPart[],
  placement: Placement,
  roots: Iterable<PagePlace>,
): boolean {
  const reader = new TableReader(parts, piecesOf(placement, parts));
  for (const at of roots) {
    const root = reader.readAt(at);
    reader.begin();
    if (root !== undefined && directMap(reader, root) !== undefined) return true;
  }
  return false;
}

const isEnough = ({ good, bad }: TableCounts) => good >= ENOUGH && bad < good / 2;

/**
 * Whether plugged memory is where it is assumed to be: tables of programs are there where their topmost tables say, as
 * for memory above the hole.
 * @param parts memory whose place is known, and last the one in question
 * @param pieces places of them, and last the assumed one
 * @param roots possible topmost tables in all parts
 */
export function provePlugged(
  parts: readonly BlockPart[],
  pieces: readonly Piece[],
  roots: Iterable<PagePlace>,
  { kernel, plugged }: PlacementProof,
): boolean {
  const reader = new TableReader(parts, pieces, plugged);
  const counts = { good: 0, bad: 0 };
  for (const at of roots) {
    const root = reader.readAt(at);
    if (root === undefined || addressAt(root, KERNEL_SLOT) !== kernel) continue;
    reader.begin();
    countPrograms(reader, root, (address) =>
      pieceAt(pieces, address) === pieces.length - 1 ? counts : undefined,
    );
  }
  return isEnough(counts);
}

/** As {@link besides}, but undefined too if another placement leaves less of the mapping unexplained. */
function bestBesides(map: DirectMap, placement: Placement): PhysicalRange[] | undefined {
  const own = besides(map, placement);
  if (own === undefined || own.length === 0) return own;
  const bytes = (ranges: readonly PhysicalRange[] | undefined) =>
    ranges?.reduce((sum, { start, end }) => sum + end - start, 0) ?? Number.POSITIVE_INFINITY;
  const isBest = placements(placement.total).every((other) => bytes(besides(map, other)) >= bytes(own));
  return isBest ? own : undefined;
}

/** @returns the memory of a kernel's mapping beside that of a placement; undefined if it is not that placement's */
function besides({ lowEnd, high }: DirectMap, placement: Placement): PhysicalRange[] | undefined {
  const { low, total } = placement;
  if (lowEnd > low || lowEnd <= low - MAX_RESERVED) return undefined;
  const [top, start] = [endOf(placement), pluggedStart(placement)];
  const last = Math.max(
    0,
    ...high.filter((range) => range.start < top).map(({ end }) => Math.min(end, start)),
  );
  if (last > top || (low < total && last <= top - MAX_UNMAPPED)) return undefined;
  const plugged = high
    .filter(({ end }) => end > top)
    .map((range) => ({ start: range.start < top ? start : range.start, end: range.end }));
  return plugged.every((range) => range.start >= start) ? plugged : undefined;
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
