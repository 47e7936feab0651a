import { FRAME_SIZE, type FrameNumber } from '../hypervisor/frame.ts';
import { formatAddress, type GuestVirtual } from './address.ts';
import type { FaultFacts } from './fault.ts';
import { isCanonical } from './paging.ts';
import type { PagingMode, Translation } from './types.ts';

/** Provides page tables by frame: a view of 4096 bytes, or null if that frame is not RAM. */
export interface TableSource {
  table(frame: number): DataView | null;
}

const PRESENT = 1n << 0n;
const WRITABLE = 1n << 1n;
const USER = 1n << 2n;
const LARGE = 1n << 7n;
const NO_EXECUTE = 1n << 63n;
const ADDRESS_MASK = 0x000f_ffff_ffff_f000n;
const OFFSET_BITS = 12;

/** Whether a walk ended in a fault. */
export function isFault(result: Translation | FaultFacts): result is FaultFacts {
  return 'reason' in result;
}

/**
 * Walks the page tables from `root` like the processor (Intel SDM vol. 3A, 4.5), including rights. Reads at most one
 * table per level, whatever the tables contain.
 */
export function walk<F extends FrameNumber>(
  tables: TableSource,
  mode: PagingMode,
  root: number,
  address: GuestVirtual,
): Translation<F> | FaultFacts {
  if (!isCanonical(address, mode)) {
    return { address, root, reason: 'non-canonical', level: 0, entryAddress: undefined, entry: undefined };
  }
  const levels = mode.split.length - 1;
  let table = root / FRAME_SIZE;
  let shift = mode.split.reduce((sum, width) => sum + width, 0);
  let writable = true;
  let user = true;
  let executable = true;
  for (let level = levels; level >= 1; level--) {
    const width = mode.split[levels - level]!;
    shift -= width;
    const index = Number((address >> BigInt(shift)) & ((1n << BigInt(width)) - 1n));
    const entryAddress = table * FRAME_SIZE + index * 8;
    const view = tables.table(table);
    if (view === null) {
      return { address, root, reason: 'table-unmapped', level, entryAddress, entry: undefined };
    }
    const entry = view.getBigUint64(index * 8, true);
    const reason = checkEntry(entry, level, shift, mode);
    if (reason !== null) return { address, root, reason, level, entryAddress, entry };
    writable &&= (entry & WRITABLE) !== 0n;
    user &&= (entry & USER) !== 0n;
    executable &&= (entry & NO_EXECUTE) === 0n;
    const target = entry & ADDRESS_MASK;
    if (level === 1 || entry & LARGE) {
      // Bit 12 of a large page's entry is its memory type (PAT), not address.
      const base = (target >> BigInt(shift)) << BigInt(shift - OFFSET_BITS);
      const inside = address & ((1n << BigInt(shift)) - 1n);
      return {
        frame: Number(base + (inside >> BigInt(OFFSET_BITS))) as F,
        offset: Number(inside & 0xfffn),
        pageSize: 2 ** shift,
        writable,
        user,
        executable,
      };
    }
    table = Number(target >> BigInt(OFFSET_BITS));
  }
  throw new RangeError(`a paging mode without levels cannot translate ${formatAddress(address)}`);
}

function checkEntry(
  entry: bigint,
  level: number,
  shift: number,
  mode: PagingMode,
): 'not-present' | 'reserved-bit' | null {
  if (!(entry & PRESENT)) return 'not-present';
  const tooHigh = (ADDRESS_MASK >> BigInt(mode.physicalBits)) << BigInt(mode.physicalBits);
  if (entry & tooHigh) return 'reserved-bit';
  if (!mode.noExecute && entry & NO_EXECUTE) return 'reserved-bit';
  if (level > 1 && entry & LARGE) {
    if (!mode.largePages.includes(level)) return 'reserved-bit';
    // Bits 13 up to the page's size must be clear.
    const low = ((1n << BigInt(shift)) - 1n) & ~0x1fffn;
    if (entry & low) return 'reserved-bit';
  }
  return null;
}
