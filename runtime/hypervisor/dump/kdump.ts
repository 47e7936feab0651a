import { inflateSync, zstdDecompressSync } from 'node:zlib';
import { FRAME_LIMIT, FRAME_SIZE, type FrameNumber } from '../frame.ts';
import type { FrameRegion } from '../types.ts';
import type { DumpContent, DumpPages } from './content.ts';
import { parseNotes, qemuRegisters } from './elf.ts';
import type { DumpBytes } from './file.ts';

export const KDUMP = Buffer.from('KDUMP   ', 'latin1');

/** Offsets in disk_dump_header and kdump_sub_header (makedumpfile diskdump_mod.h), which are file formats. */
const HEADER = {
  version: 8,
  blockSize: 428,
  subHeaderBlocks: 432,
  bitmapBlocks: 436,
  maxFrame: 440,
} as const;
const SUB_HEADER = { offsetNote: 48, sizeNote: 56, maxFrame: 96, size: 104 } as const;
/** Header versions from which the sub header has notes, and 64-bit frame numbers. */
const WITH_NOTES = 4;
const WITH_64_BIT = 6;
/** page_desc: offset, size, flags, page flags. */
const DESCRIPTOR = 24;
const PACKED = { zlib: 1, lzo: 2, snappy: 4, zstd: 0x20 } as const;
/** Largest bitmap, for a machine with 4 TiB. */
const MAX_BITMAP = 256 * 1024 ** 2;
/** For each group of this many frames, one number says how many pages are stored before it. */
const GROUP = 4096;
const GROUP_BYTES = GROUP / 8;
const KEPT_PAGES = 64;

const BITS = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);

/**
 * Reads a kdump-compressed dump: from QEMU's `dump-guest-memory -z`, `virsh dump --memory-only --format=kdump-zlib`, or
 * makedumpfile itself. Pages packed with LZO or snappy are refused.
 * @throws DomschedError `dump-corrupt`, `dump-unsupported`
 */
export function readKdump(file: DumpBytes): DumpContent {
  const header = file.block(0, FRAME_SIZE, 'kdump header');
  const version = header.readInt32LE(HEADER.version);
  const block = header.readInt32LE(HEADER.blockSize);
  if (block !== FRAME_SIZE)
    file.unsupported(`a kdump of pages of ${block} bytes`, 'domsched reads x86 guests');
  const subHeader = file.block(block, SUB_HEADER.size, 'kdump sub header');
  const bitmapAt = (1 + header.readUInt32LE(HEADER.subHeaderBlocks)) * block;
  const bitmapBytes = header.readUInt32LE(HEADER.bitmapBlocks) * block;
  const frames =
    version >= WITH_64_BIT
      ? Number(subHeader.readBigUInt64LE(SUB_HEADER.maxFrame))
      : header.readUInt32LE(HEADER.maxFrame);
  const half = bitmapBytes / 2;
  if (
    frames > FRAME_LIMIT ||
    half * 8 < frames ||
    bitmapBytes > MAX_BITMAP ||
    bitmapAt + bitmapBytes > file.size
  )
    file.corrupt('kdump bitmap', bitmapAt);
  const pages = new KdumpPages(file, readBitmap(file, bitmapAt + half, frames), bitmapAt + bitmapBytes);
  const notesAt = Number(subHeader.readBigUInt64LE(SUB_HEADER.offsetNote));
  const notesSize = version >= WITH_NOTES ? Number(subHeader.readBigUInt64LE(SUB_HEADER.sizeNote)) : 0;
  const notes = parseNotes(file.block(notesAt, notesSize, 'notes'), file, notesAt);
  return { format: 'kdump', space: 'guest', pages, registers: qemuRegisters(notes, file) };
}

/** One bit for each frame whose page is in the file; bits beyond the last frame are cleared. */
function readBitmap(file: DumpBytes, at: number, frames: number): Uint8Array {
  const bitmap = new Uint8Array(Math.ceil(frames / 8));
  if (file.read(bitmap, 0, bitmap.length, at) !== bitmap.length) file.corrupt('kdump bitmap', at);
  if (frames % 8 !== 0) bitmap[bitmap.length - 1]! &= (1 << (frames % 8)) - 1;
  return bitmap;
}

/** Pages that are packed one by one, each with a descriptor; the descriptors are in the order of frames. */
class KdumpPages implements DumpPages {
  readonly #file: DumpBytes;
  readonly #bitmap: Uint8Array;
  readonly #descriptors: number;
  /** Number of pages stored before each group of frames. */
  readonly #before: Float64Array;
  /** Recently unpacked pages. */
  readonly #kept = new Map<number, Uint8Array>();

  constructor(file: DumpBytes, bitmap: Uint8Array, descriptors: number) {
    this.#file = file;
    this.#bitmap = bitmap;
    this.#descriptors = descriptors;
    this.#before = new Float64Array(Math.ceil(bitmap.length / GROUP_BYTES));
    let stored = 0;
    for (let at = 0; at < bitmap.length; at++) {
      if (at % GROUP_BYTES === 0) this.#before[at / GROUP_BYTES] = stored;
      stored += BITS[bitmap[at]!]!;
    }
    if (descriptors + stored * DESCRIPTOR > file.size) file.corrupt('table of pages', descriptors);
    // Most dumps use one packing: fail at once if we cannot unpack it.
    if (stored > 0) this.#unpackNth(0);
  }

  regions(): readonly FrameRegion[] {
    const regions: { first: FrameNumber; count: number }[] = [];
    let open: { first: FrameNumber; count: number } | undefined;
    for (let frame = 0; frame < this.#bitmap.length * 8; frame++) {
      if (!this.#has(frame)) {
        open = undefined;
        // Skips eight frames at a time where none is stored.
        if (frame % 8 === 0 && this.#bitmap[frame / 8] === 0) frame += 7;
        continue;
      }
      if (open === undefined) {
        open = { first: frame as FrameNumber, count: 0 };
        regions.push(open);
      }
      open.count += 1;
    }
    return regions;
  }

  read(frame: number, offset: number, length: number, into: Uint8Array, position: number): boolean {
    if (!this.#has(frame)) return false;
    let page = this.#kept.get(frame);
    if (page === undefined) {
      page = this.#unpackNth(this.#rank(frame));
      if (this.#kept.size === KEPT_PAGES) this.#kept.delete(this.#kept.keys().next().value!);
      this.#kept.set(frame, page);
    }
    into.set(page.subarray(offset, offset + length), position);
    return true;
  }

  #has(frame: number): boolean {
    return ((this.#bitmap[Math.floor(frame / 8)] ?? 0) & (1 << (frame % 8))) !== 0;
  }

  /** Number of pages stored before that of a frame. */
  #rank(frame: number): number {
    const group = Math.floor(frame / GROUP);
    const byte = Math.floor(frame / 8);
    let rank = this.#before[group]!;
    for (let at = group * GROUP_BYTES; at < byte; at++) rank += BITS[this.#bitmap[at]!]!;
    return rank + BITS[this.#bitmap[byte]! & ((1 << (frame % 8)) - 1)]!;
  }

  #unpackNth(index: number): Uint8Array {
    const at = this.#descriptors + index * DESCRIPTOR;
    const descriptor = this.#file.block(at, DESCRIPTOR, 'descriptor of a page');
    const offset = Number(descriptor.readBigUInt64LE(0));
    const size = descriptor.readUInt32LE(8);
    const flags = descriptor.readUInt32LE(12);
    if (size > FRAME_SIZE) this.#file.corrupt('descriptor of a page', at);
    const packed = this.#file.block(offset, size, 'page');
    const page = unpack(packed, flags, this.#file, offset);
    if (page.length !== FRAME_SIZE) this.#file.corrupt('page', offset);
    return page;
  }
}

function unpack(packed: Buffer, flags: number, file: DumpBytes, offset: number): Uint8Array {
  if ((flags & (PACKED.lzo | PACKED.snappy)) !== 0) {
    const name = (flags & PACKED.lzo) !== 0 ? 'LZO' : 'snappy';
    const advice = 'take it again with -z (kdump-zlib), or without a format';
    file.unsupported(`a kdump that is packed with ${name}`, advice);
  }
  const limit = { maxOutputLength: FRAME_SIZE };
  try {
    if ((flags & PACKED.zlib) !== 0) return inflateSync(packed, limit);
    return (flags & PACKED.zstd) !== 0 ? zstdDecompressSync(packed, limit) : packed;
  } catch {
    return file.corrupt('page', offset);
  }
}
