import type { NameTable } from './names.ts';

/**
 * How a table stores the symbols' addresses:
 * - `absolute`: 64 bits each (kernels without KALLSYMS_BASE_RELATIVE; gone in 6.11);
 * - `percpu`: offsets; a value from 0 on is the address itself, one below is `base - 1 - value` (up to 6.14);
 * - `base`: offsets from a base (6.15 to 6.19, where per-CPU symbols have ordinary addresses);
 * - `place`: offsets from the offset's own position (from 7.0).
 */
export type Encoding = 'absolute' | 'percpu' | 'base' | 'place';

export interface AddressTable {
  readonly encoding: Encoding;
  /** In bytes from the start of the searched data. */
  readonly start: number;
  /** Base of the offsets; for `place`, the address of the table. */
  readonly base: bigint;
  /** Position of the stored base, in bytes from the start; absent if it is not stored. */
  readonly baseAt?: number;
}

/** Tables begin at multiples of 8 up to 6.19, of 4 later. */
const GAPS = [0, 4] as const;

/**
 * Possible address tables: before the number of symbols up to 6.3, after the index of tokens later. Only the resulting
 * symbol addresses show which one is right.
 *
 * @param address of the first of `bytes`
 * @param tokensEnd end of the index of tokens
 */
export function* addressTables(
  bytes: Buffer,
  address: bigint,
  names: NameTable,
  tokensEnd: number,
): Generator<AddressTable> {
  const { count, countAt } = names;
  const size = 4 * count;
  const behind = Math.ceil(tokensEnd / 4) * 4;
  for (const gap of GAPS) {
    const before = countAt - 8 - 8 * Math.ceil(size / 8) + gap;
    yield* relative(before, countAt - 8);
    yield* relative(behind + gap, 8 * Math.ceil((behind + gap + size) / 8));
  }
  for (const gap of GAPS) {
    const start = behind + gap;
    if (start + size <= bytes.length) {
      yield { encoding: 'place', start, base: address + BigInt(start) };
    }
  }
  const start = countAt - 8 * count;
  if (start >= 0) yield { encoding: 'absolute', start, base: 0n };

  function* relative(start: number, baseAt: number): Generator<AddressTable> {
    if (start < 0 || baseAt < start + size || baseAt + 8 > bytes.length) return;
    const base = bytes.readBigUInt64LE(baseAt);
    yield { encoding: 'percpu', start, base, baseAt };
    yield { encoding: 'base', start, base, baseAt };
  }
}

/** Address of symbol `index`. */
export function addressOf(bytes: Buffer, { encoding, start, base }: AddressTable, index: number): bigint {
  if (encoding === 'absolute') return bytes.readBigUInt64LE(start + 8 * index);
  const at = start + 4 * index;
  if (encoding === 'base') return BigInt.asUintN(64, base + BigInt(bytes.readUInt32LE(at)));
  const value = bytes.readInt32LE(at);
  if (encoding === 'place') return BigInt.asUintN(64, base + BigInt(4 * index + value));
  return value >= 0 ? BigInt(value) : BigInt.asUintN(64, base - 1n - BigInt(value));
}

/** Whether the addresses never decrease, since the kernel looks symbols up by bisection. */
export function isSorted(bytes: Buffer, { encoding, start }: AddressTable, count: number): boolean {
  let last = 0;
  let lastWide = 0n;
  for (let index = 0; index < count; index++) {
    if (encoding === 'absolute') {
      const value = bytes.readBigUInt64LE(start + 8 * index);
      if (value < lastWide) return false;
      lastWide = value;
      continue;
    }
    const value = bytes.readInt32LE(start + 4 * index);
    // Orders like the addresses, without the cost of 64 bits for each.
    const order =
      encoding === 'base' ? value >>> 0 : encoding === 'place' ? 4 * index + value : percpuOrder(value);
    if (index > 0 && order < last) return false;
    last = order;
  }
  return true;
}

/** Values that are addresses themselves come first: per-CPU symbols lie at 0. */
function percpuOrder(value: number): number {
  return value >= 0 ? value : 2 ** 32 - value;
}
