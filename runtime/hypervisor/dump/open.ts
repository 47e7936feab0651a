import { DomschedError } from '../../error.ts';
import { FRAME_SIZE } from '../frame.ts';
import type { DumpContent, DumpSegment } from './content.ts';
import { readElfCore, wholeFrames } from './elf.ts';
import type { DumpFile } from './file.ts';

const ELF = Buffer.from('\x7fELF', 'latin1');
const LIME = Buffer.from('EMiL', 'latin1');
const LIME_HEADER = 32;
const MAX_LIME_RANGES = 65_536;
const FOUR_GIB = 2 ** 32;

/** Formats that hold their pages compressed: how they begin, and what to do. */
const COMPRESSED: readonly (readonly [string, string])[] = [
  ['KDUMP   ', 'kdump-compressed; take an ELF core (dump-guest-memory without a format, makedumpfile -E)'],
  ['DISKDUMP', 'diskdump; take an ELF core'],
  [
    'makedumpfile\0',
    "makedumpfile's flattened format; rearrange it into an ELF core with makedumpfile -R and -E",
  ],
  ['LinuxGuestRecord', "Xen's save format; take xl dump-core"],
];

/**
 * Finds out by its content what a dump is.
 * @param lowBytes for raw memory: bytes of RAM below the PCI hole; what follows in the file is at 4 GiB. All of it
 *   is from address 0 on when left out
 * @throws DomschedError `dump-corrupt`, `dump-unsupported`
 */
export function readDump(file: DumpFile, lowBytes?: number): DumpContent {
  if (file.size < FRAME_SIZE) file.corrupt('header', 0);
  const head = file.block(0, 64, 'header');
  for (const [magic, advice] of COMPRESSED) {
    if (!head.subarray(0, magic.length).equals(Buffer.from(magic, 'latin1'))) continue;
    throw new DomschedError('dump-unsupported', `${file.path} is ${advice}`, { path: file.path });
  }
  if (head.subarray(0, 4).equals(ELF)) return readElfCore(file);
  if (head.subarray(0, 4).equals(LIME)) return readLime(file);
  return { format: 'raw', space: 'guest', segments: rawSegments(file.size, lowBytes), registers: undefined };
}

function rawSegments(size: number, lowBytes = size): DumpSegment[] {
  const low = Math.min(lowBytes, size);
  const segments = [wholeFrames(0, low, 0)];
  if (size - low >= FRAME_SIZE) segments.push(wholeFrames(FOUR_GIB, size - low, low));
  return segments;
}

/** LiME: ranges one after the other, each behind a header with its first and last address (LiME doc/README). */
function readLime(file: DumpFile): DumpContent {
  const segments: DumpSegment[] = [];
  let at = 0;
  while (at < file.size) {
    const header = file.block(at, LIME_HEADER, 'LiME header');
    const first = header.readBigUInt64LE(8);
    const last = header.readBigUInt64LE(16);
    const valid =
      header.subarray(0, 4).equals(LIME) && header.readUInt32LE(4) === 1 && last >= first && last < 1n << 52n;
    const length = Number(last - first) + 1;
    if (!valid || at + LIME_HEADER + length > file.size || segments.length >= MAX_LIME_RANGES)
      file.corrupt('LiME header', at);
    const segment = wholeFrames(Number(first), length, at + LIME_HEADER);
    if (segment.count > 0) segments.push(segment);
    at += LIME_HEADER + length;
  }
  return { format: 'lime', space: 'guest', segments, registers: undefined };
}
