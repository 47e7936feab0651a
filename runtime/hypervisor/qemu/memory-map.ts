import { DomschedError } from '../../error.ts';
import { FRAME_SIZE } from '../frame.ts';

/** A piece of guest-physical RAM from QEMU's flat view. */
export interface RamRange {
  /** Physical address of the first byte, and number of bytes; both are whole frames. */
  readonly start: number;
  readonly length: number;
  /** Memory block behind it, and the offset in that block. */
  readonly block: string;
  readonly offset: number;
}

const RANGE =
  /^\s+([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ([a-z/]+)\): (\S.*?)(?: @([0-9a-f]{16}))?(?: KVM)?$/;
const MAX_RANGES = 65_536;

/**
 * Parses the RAM of the address space "memory" from the monitor's `info mtree -f`. It leaves out ROM, shadowed
 * firmware, devices, holes, and device memory that only looks like RAM (video memory).
 * @param blocks names of the machine's memory backends
 * @throws DomschedError `protocol` when there is none
 */
export function parseMemoryMap(text: string, blocks: ReadonlySet<string>): RamRange[] {
  const views = text.split(/^FlatView #\d+$/m);
  const view = views.find((candidate) =>
    /^ AS "memory", root: system$/m.test(candidate.replaceAll('\r', '')),
  );
  const ranges: RamRange[] = [];
  for (const line of (view ?? '').replaceAll('\r', '').split('\n')) {
    const match = RANGE.exec(line);
    if (match === null || match[3] !== 'ram') continue;
    const block = match[4]!;
    if (!blocks.has(blockName(block))) continue;
    const start = Number(`0x${match[1]}`);
    const end = Number(`0x${match[2]}`) + 1;
    // QEMU can map pieces of a page, but we touch only whole frames.
    const first = Math.ceil(start / FRAME_SIZE) * FRAME_SIZE;
    const length = Math.floor(end / FRAME_SIZE) * FRAME_SIZE - first;
    if (length <= 0 || end > 2 ** 52) continue;
    ranges.push({ start: first, length, block, offset: Number(`0x${match[5] ?? '0'}`) + first - start });
    if (ranges.length > MAX_RANGES) break;
  }
  if (ranges.length === 0 || ranges.length > MAX_RANGES) {
    throw new DomschedError('protocol', 'info mtree -f shows no RAM for the address space "memory"', {
      ranges: ranges.length,
    });
  }
  return ranges.sort((a, b) => a.start - b.start);
}

/** Name of a backend, whose block may be named by its path in the object tree. */
export function blockName(block: string): string {
  return block.slice(block.lastIndexOf('/') + 1);
}
