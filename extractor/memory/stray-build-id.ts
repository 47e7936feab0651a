import type { MemoryPart } from '../contract.ts';
import { asBuffer } from '../elf/byte-source.ts';

/** A note with owner GNU and a SHA-1: sizes of name and content, NT_GNU_BUILD_ID, the owner. */
const NOTE = Buffer.from('040000001400000003000000474e5500', 'hex');
const BUILD_ID = 20;
const ELF = Buffer.from('\x7fELF', 'latin1');
const PAGE = 4096;
/** An ELF file around a note may begin so many pages before it; a vDSO has two. */
const MAX_FILE_PAGES = 16;
/** Notes examined: a kernel has its own and those of its vDSOs. */
const MAX_NOTES = 64;

/**
 * The build-id of a kernel whose symbols do not tell where its notes are: found among its constants, outside of
 * embedded ELF files (vDSOs have notes of their own). It helps to find the debug file but proves nothing.
 */
export function strayBuildId(parts: readonly MemoryPart[]): string | null {
  let notes = 0;
  for (const { bytes } of parts) {
    const buffer = asBuffer(bytes);
    for (let at = buffer.indexOf(NOTE); at >= 0; at = buffer.indexOf(NOTE, at + 1)) {
      if (++notes > MAX_NOTES) return null;
      const start = at + NOTE.length;
      if (at % 4 !== 0 || start + BUILD_ID > buffer.length || isInFile(buffer, at)) continue;
      return buffer.toString('hex', start, start + BUILD_ID);
    }
  }
  return null;
}

/** Whether a position is in an ELF file that begins at one of the pages before it. */
function isInFile(buffer: Buffer, at: number): boolean {
  const page = at - (at % PAGE);
  for (let start = page; start >= Math.max(0, page - MAX_FILE_PAGES * PAGE); start -= PAGE) {
    if (start + 64 > buffer.length || buffer.compare(ELF, 0, ELF.length, start, start + ELF.length) !== 0) {
      continue;
    }
    return at < start + sizeOfFile(buffer.subarray(start, start + 64));
  }
  return false;
}

/** Up to the end of its section table, which linkers put last (gABI, "ELF Header"). */
function sizeOfFile(header: Buffer): number {
  const is64 = header[4] === 2;
  const table = is64 ? Number(header.readBigUInt64LE(40)) : header.readUInt32LE(32);
  const [size, count] = is64
    ? [header.readUInt16LE(58), header.readUInt16LE(60)]
    : [header.readUInt16LE(46), header.readUInt16LE(48)];
  return table + size * count;
}
