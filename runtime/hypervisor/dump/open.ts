import { FRAME_SIZE } from '../frame.ts';
import type { DumpContent } from './content.ts';
import { readElfCore } from './elf.ts';
import type { DumpBytes } from './file.ts';
import { FLATTENED, FlattenedFile } from './flattened.ts';
import { HEAD, refuseForeign } from './foreign.ts';
import { KDUMP, readKdump } from './kdump.ts';
import { PlainPages, wholeFrames } from './plain-pages.ts';
import type { DumpRun } from './runs.ts';

const ELF = Buffer.from('\x7fELF', 'latin1');
const LIME = Buffer.from('EMiL', 'latin1');
const LIME_HEADER = 32;
const MAX_LIME_RANGES = 65_536;
const FOUR_GIB = 2 ** 32;

/**
 * Detects the format of a dump from its content.
 * @param lowBytes for raw memory: bytes of RAM below the PCI hole; the rest of the file is at 4 GiB. When left out, all
 *   of it starts at address 0
 * @throws DomschedError `dump-corrupt`, `dump-unsupported`
 */
export function readDump(file: DumpBytes, lowBytes?: number): DumpContent {
  const head = Buffer.alloc(Math.min(HEAD, file.size));
  file.read(head, 0, head.length, 0);
  refuseForeign(file, head);
  if (file.size < FRAME_SIZE) file.corrupt('header', 0);
  const begins = (magic: Buffer) => head.subarray(0, magic.length).equals(magic);
  if (begins(FLATTENED)) {
    if (file instanceof FlattenedFile) file.corrupt('flattened format within a flattened one', 0);
    return readDump(new FlattenedFile(file), lowBytes);
  }
  if (begins(KDUMP)) return readKdump(file);
  if (begins(ELF)) return readElfCore(file);
  if (begins(LIME)) return readLime(file);
  return {
    format: 'raw',
    space: 'guest',
    pages: new PlainPages(file, rawRuns(file.size, lowBytes)),
    registers: undefined,
  };
}

function rawRuns(size: number, lowBytes = size): DumpRun[] {
  const low = Math.min(lowBytes, size);
  const runs = [wholeFrames(0, low, 0)];
  if (size - low >= FRAME_SIZE) runs.push(wholeFrames(FOUR_GIB, size - low, low));
  return runs;
}

/** LiME format: a sequence of ranges, each after a header with its first and last address (LiME doc/README). */
function readLime(file: DumpBytes): DumpContent {
  const runs: DumpRun[] = [];
  let at = 0;
  while (at < file.size) {
    const header = file.block(at, LIME_HEADER, 'LiME header');
    const first = header.readBigUInt64LE(8);
    const last = header.readBigUInt64LE(16);
    const valid =
      header.subarray(0, 4).equals(LIME) && header.readUInt32LE(4) === 1 && last >= first && last < 1n << 52n;
    const length = Number(last - first) + 1;
    if (!valid || at + LIME_HEADER + length > file.size || runs.length >= MAX_LIME_RANGES)
      file.corrupt('LiME header', at);
    runs.push(wholeFrames(Number(first), length, at + LIME_HEADER));
    at += LIME_HEADER + length;
  }
  return { format: 'lime', space: 'guest', pages: new PlainPages(file, runs), registers: undefined };
}
