import type { BitWord, MemberKind, Scalar } from './types.ts';

export type Reader = (view: DataView, at?: number) => Scalar;

/** What decides how a member is read. */
export interface Readable {
  readonly kind: MemberKind;
  readonly size: number;
  readonly signed?: boolean | undefined;
  readonly bitSize?: number | undefined;
  readonly bits?: BitWord | undefined;
}

/**
 * A function that reads a little-endian scalar at a fixed offset of a structure: what generated accessors do, for
 * offsets that are summed up at run time. Each kind is one closure around one DataView call, which V8 inlines;
 * a wrapper around a generated accessor would not be.
 *
 * @returns undefined for what is no scalar
 */
export function readerOf(member: Readable, offset: number): Reader | undefined {
  const { kind, size, signed } = member;
  if (member.bitSize !== undefined) {
    return member.bits && bitReader(kind, member.bits, member.bitSize, signed ?? false);
  }
  if (kind === 'bool') return size === 1 ? (view, at = 0) => view.getUint8(at + offset) !== 0 : undefined;
  if (kind === 'float') {
    if (size === 4) return (view, at = 0) => view.getFloat32(at + offset, true);
    return size === 8 ? (view, at = 0) => view.getFloat64(at + offset, true) : undefined;
  }
  if (kind !== 'int' && kind !== 'enum' && kind !== 'pointer') return undefined;
  switch (signed ? -size : size) {
    case 1:
      return (view, at = 0) => view.getUint8(at + offset);
    case -1:
      return (view, at = 0) => view.getInt8(at + offset);
    case 2:
      return (view, at = 0) => view.getUint16(at + offset, true);
    case -2:
      return (view, at = 0) => view.getInt16(at + offset, true);
    case 4:
      return (view, at = 0) => view.getUint32(at + offset, true);
    case -4:
      return (view, at = 0) => view.getInt32(at + offset, true);
    case 8:
      return (view, at = 0) => view.getBigUint64(at + offset, true);
    case -8:
      return (view, at = 0) => view.getBigInt64(at + offset, true);
    default:
      return undefined;
  }
}

function bitReader(
  kind: MemberKind,
  { offset, size, shift }: BitWord,
  width: number,
  signed: boolean,
): Reader {
  if (size === 8) {
    const down = BigInt(shift);
    return (view, at = 0) => {
      const raw = view.getBigUint64(at + offset, true) >> down;
      const value = signed ? BigInt.asIntN(width, raw) : BigInt.asUintN(width, raw);
      if (kind === 'bool') return value !== 0n;
      return width <= 53 ? Number(value) : value;
    };
  }
  const word = readerOf({ kind: 'int', size }, offset)!;
  // The field's top bit goes to bit 31 of JavaScript's 32-bit integers, then down again with or without its sign.
  const left = 32 - shift - width;
  const right = 32 - width;
  if (kind === 'bool') return (view, at) => ((word(view, at) as number) << left) >>> right !== 0;
  return signed
    ? (view, at) => ((word(view, at) as number) << left) >> right
    : (view, at) => ((word(view, at) as number) << left) >>> right;
}
