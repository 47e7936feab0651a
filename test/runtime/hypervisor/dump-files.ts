import { deflateSync, zstdCompressSync } from 'node:zlib';

import type { DumpDomain } from '../../../runtime/hypervisor/dump/domain.ts';
import { machineFrame } from '../../../runtime/hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../../runtime/hypervisor/frame-batch.ts';

const FRAME = 4096;

/** ELF64 core header as QEMU and Xen write it. */
function elfHeader(fields: {
  phoff?: number;
  phnum?: number;
  shoff?: number;
  shnum?: number;
  shstrndx?: number;
}): Buffer {
  const header = Buffer.alloc(64);
  header.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  header.writeUInt16LE(4, 16);
  header.writeUInt16LE(62, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(fields.phoff ?? 0), 32);
  header.writeBigUInt64LE(BigInt(fields.shoff ?? 0), 40);
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(fields.phnum ?? 0, 56);
  header.writeUInt16LE(64, 58);
  header.writeUInt16LE(fields.shnum ?? 0, 60);
  header.writeUInt16LE(fields.shstrndx ?? 0, 62);
  return header;
}

export function note(name: string, type: number, content: Buffer): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt32LE(name.length + 1, 0);
  head.writeUInt32LE(content.length, 4);
  head.writeUInt32LE(type, 8);
  const pad = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
  return Buffer.concat([head, pad(Buffer.from(`${name}\0`)), pad(content)]);
}

/** A PT_LOAD: where it is in physical memory. Pieces that have the same buffer have the same place in the file. */
export interface DumpPiece {
  readonly physical: number;
  readonly bytes: Buffer;
}

/** An ELF core of these pieces of physical memory, the number of its headers where QEMU puts it when it is large. */
export function elfCore(pieces: readonly DumpPiece[], notes: Buffer = Buffer.alloc(0)): Buffer {
  const count = pieces.length + 1;
  const large = count >= 0xffff;
  const section = Buffer.alloc(large ? 64 : 0);
  const table = Buffer.alloc(count * 56);
  const header = elfHeader({
    phoff: 64 + section.length,
    phnum: large ? 0xffff : count,
    ...(large && { shoff: 64, shnum: 1 }),
  });
  if (large) section.writeUInt32LE(count, 44);
  let end = 64 + section.length + table.length;
  const places = new Map<Buffer, number>();
  const entry = (index: number, type: number, physical: number, bytes: Buffer) => {
    const offset = places.get(bytes) ?? end;
    if (offset === end) {
      places.set(bytes, offset);
      end += bytes.length;
    }
    table.writeUInt32LE(type, index * 56);
    table.writeBigUInt64LE(BigInt(offset), index * 56 + 8);
    table.writeBigUInt64LE(BigInt(physical), index * 56 + 24);
    table.writeBigUInt64LE(BigInt(bytes.length), index * 56 + 32);
    table.writeBigUInt64LE(BigInt(bytes.length), index * 56 + 40);
  };
  entry(0, 4, 0, notes);
  for (const [index, { physical, bytes }] of pieces.entries()) entry(index + 1, 1, physical, bytes);
  return Buffer.concat([header, section, table, ...places.keys()]);
}

/** What `xl dump-core` writes: for PV pairs of frames, else guest frames alone. */
export function xenCore(
  frames: readonly (readonly [number, number])[],
  pages: Buffer,
  pv: boolean,
  contexts = Buffer.alloc(0),
): Buffer {
  const names = ['', '.shstrtab', '.xen_prstatus', '.xen_pages', pv ? '.xen_p2m' : '.xen_pfn'];
  const strings = Buffer.from(`${names.join('\0')}\0`);
  const table = Buffer.alloc(frames.length * (pv ? 16 : 8));
  frames.forEach(([pfn, mfn], index) => {
    table.writeBigUInt64LE(BigInt(pfn), index * (pv ? 16 : 8));
    if (pv) table.writeBigUInt64LE(BigInt(mfn), index * 16 + 8);
  });
  const bodies = [Buffer.alloc(0), strings, contexts, pages, table];
  const headers = Buffer.alloc(names.length * 64);
  let offset = 64 + headers.length;
  let name = 0;
  bodies.forEach((body, index) => {
    headers.writeUInt32LE(name, index * 64);
    headers.writeBigUInt64LE(BigInt(offset), index * 64 + 24);
    headers.writeBigUInt64LE(BigInt(body.length), index * 64 + 32);
    name += names[index]!.length + 1;
    offset += body.length;
  });
  const header = elfHeader({ shoff: 64, shnum: names.length, shstrndx: 1 });
  return Buffer.concat([header, headers, ...bodies]);
}

export function lime(pieces: readonly DumpPiece[]): Buffer {
  return Buffer.concat(pieces.flatMap(({ physical, bytes }) => [limeHeader(physical, bytes.length), bytes]));
}

/** LiME's own header of one range (lime.h): magic "EMiL", version 1, first and last byte, eight bytes for later. */
export function limeHeader(first: number, bytes: number): Buffer {
  const header = Buffer.alloc(32);
  header.write('EMiL', 0, 'latin1');
  header.writeUInt32LE(1, 4);
  header.writeBigUInt64LE(BigInt(first), 8);
  header.writeBigUInt64LE(BigInt(first + bytes - 1), 16);
  return header;
}

/** `count` frames, each filled with a byte of its own. */
export function framesOf(count: number, first = 1): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, index) => Buffer.alloc(FRAME, first + index)));
}

/** How a page is stored in a kdump: as it is, or packed, with the flag that says so. */
const PAGE_PACKING = [
  { flag: 0, pack: (page: Buffer) => page },
  { flag: 1, pack: deflateSync },
  { flag: 0x20, pack: zstdCompressSync },
] as const;

/** A kdump-compressed dump (makedumpfile IMPLEMENTATION, diskdump_mod.h); its pages are packed in turns in every way. */
export function kdump(pages: ReadonlyMap<number, Buffer>, notes: Buffer = Buffer.alloc(0)): Buffer {
  const sorted = [...pages].sort(([a], [b]) => a - b);
  const frames = (sorted.at(-1)?.[0] ?? 0) + 1;
  const header = Buffer.alloc(FRAME);
  header.write('KDUMP   ', 'latin1');
  header.writeInt32LE(6, 8);
  header.writeInt32LE(FRAME, 428);
  const subHeader = Buffer.alloc(FRAME * 2);
  notes.copy(subHeader, 1024);
  subHeader.writeBigUInt64LE(BigInt(FRAME + 1024), 48);
  subHeader.writeBigUInt64LE(BigInt(notes.length), 56);
  subHeader.writeBigUInt64LE(BigInt(frames), 96);
  const bitmap = Buffer.alloc(Math.ceil(frames / 8 / FRAME) * FRAME);
  for (const [frame] of sorted) bitmap[frame >> 3]! |= 1 << (frame & 7);
  header.writeUInt32LE(subHeader.length / FRAME, 432);
  header.writeUInt32LE((bitmap.length / FRAME) * 2, 436);
  const descriptors = Buffer.alloc(sorted.length * 24);
  const packed: Buffer[] = [];
  let at = FRAME + subHeader.length + 2 * bitmap.length + descriptors.length;
  for (const [index, [, page]] of sorted.entries()) {
    const { flag, pack } = PAGE_PACKING[index % PAGE_PACKING.length]!;
    const bytes = pack(page);
    descriptors.writeBigUInt64LE(BigInt(at), index * 24);
    descriptors.writeUInt32LE(bytes.length, index * 24 + 8);
    descriptors.writeUInt32LE(flag, index * 24 + 12);
    packed.push(bytes);
    at += bytes.length;
  }
  // The first bitmap, of all frames that the machine has, is not what says which are in the file.
  const all = Buffer.alloc(bitmap.length, 0xff);
  return Buffer.concat([header, subHeader, all, bitmap, descriptors, ...packed]);
}

/** makedumpfile's flattened format of a file, written in these pieces; the last ones written win. */
export function flattened(file: Buffer, pieces: readonly { at: number; bytes: Buffer }[]): Buffer {
  const header = Buffer.alloc(FRAME);
  header.write('makedumpfile', 'latin1');
  header.writeBigInt64BE(1n, 16);
  header.writeBigInt64BE(1n, 24);
  const record = (at: number, size: number) => {
    const bytes = Buffer.alloc(16);
    bytes.writeBigInt64BE(BigInt(at), 0);
    bytes.writeBigInt64BE(BigInt(size), 8);
    return bytes;
  };
  const parts = [...pieces];
  for (let at = 0; at < file.length; at += 5000) parts.push({ at, bytes: file.subarray(at, at + 5000) });
  return Buffer.concat([
    header,
    ...parts.flatMap(({ at, bytes }) => [record(at, bytes.length), bytes]),
    record(-1, -1),
  ]);
}

/** First byte of each frame, or null where it is not in the dump. */
export function firstBytes(domain: DumpDomain, frames: readonly number[]): (number | null)[] {
  const batch = new FrameBatch();
  for (const frame of frames) batch.add(machineFrame(frame), 8, 16);
  const failed = domain.frames.read(batch);
  const result = frames.map((_, i) =>
    batch.status[i] === FRAME_STATUS.ok ? batch.bytes[batch.positions[i]!]! : null,
  );
  if (result.filter((byte) => byte === null).length !== failed)
    throw new Error('failures are not counted right');
  return result;
}
