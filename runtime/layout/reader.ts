import { elementsOf } from './element.ts';
import type { BitWord, MemberKind, MemberLayout, Scalar } from './types.ts';

export type Reader = (view: DataView, at?: number) => Scalar;

/** The facts that determine how a member is read. */
export interface Readable {
  readonly kind: MemberKind;
  readonly size: number;
  readonly signed?: boolean | undefined;
  readonly bitSize?: number | undefined;
  readonly bits?: BitWord | undefined;
}

/** The TypeScript type for a member's C type; never if it is no single value. */
type PlainOf<Kind, Size> = Kind extends 'bool'
  ? Size extends 1
    ? boolean
    : never
  : Kind extends 'pointer'
    ? bigint
    : Kind extends 'float'
      ? Size extends 4 | 8
        ? number
        : never
      : Kind extends 'int' | 'enum'
        ? Size extends 8
          ? bigint
          : Size extends 1 | 2 | 4
            ? number
            : never
        : never;

/** Bit-field widths that do not fit a number. */
type Wide = 54 | 55 | 56 | 57 | 58 | 59 | 60 | 61 | 62 | 63 | 64;

/** The type of a member's value, or of an array element, by its layout. */
export type ValueOf<M extends MemberLayout> = M extends { readonly bitSize: infer Width }
  ? M['kind'] extends 'bool'
    ? boolean
    : Width extends Wide
      ? bigint
      : number
  : M extends { readonly element: { readonly kind: infer Kind; readonly size: infer Size } }
    ? PlainOf<Kind, Size>
    : PlainOf<M['kind'], M['size']>;

/** Reads a member of a structure that begins at byte `at` of a view; for an array, the element's index comes first. */
export type ReaderOf<M extends MemberLayout> = M extends { readonly kind: 'array' }
  ? (view: DataView, index: number, at?: number) => ValueOf<M>
  : (view: DataView, at?: number) => ValueOf<M>;

/**
 * Makes a reader for a member of a kernel that is known at compile time: `reader(layout.task_struct.static_prio)`. Make
 * it once and keep it. Use a `Field` if the kernel is known only at run time; it reads the same way.
 *
 * @param member of a generated module; a member that is no single value does not compile
 * @throws TypeError for a member that is no single value; the reader throws RangeError outside the array or the view
 */
export function reader<const M extends MemberLayout>(
  member: [ValueOf<M>] extends [never] ? never : M,
): ReaderOf<M> {
  const { kind, type, offset, element, signed } = member as MemberLayout;
  if (kind !== 'array') {
    const read = readerOf(member, offset);
    if (!read) throw new TypeError(`${type} is no single value`);
    return read as ReaderOf<M>;
  }
  const length = elementsOf(member);
  const read = element && readerOf({ ...element, signed }, offset);
  if (!read || length === undefined) throw new TypeError(`${type} has no single values`);
  return ((view: DataView, index: number, at = 0) => {
    if (!Number.isSafeInteger(index) || index < 0 || (index >= length && length !== 0)) {
      throw new RangeError(`index ${index} is outside an array of ${length} elements`);
    }
    return read(view, at + element.size * index);
  }) as ReaderOf<M>;
}

/**
 * Makes a function that reads a little-endian scalar at a fixed offset of a structure. Each kind is one closure around
 * one DataView call, because V8 inlines that but not a wrapper around it.
 *
 * @returns undefined for a member that is no scalar
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
  // The field's top bit goes to bit 31 of JavaScript's 32-bit integers, then back down with or without its sign.
  const left = 32 - shift - width;
  const right = 32 - width;
  if (kind === 'bool') return (view, at) => ((word(view, at) as number) << left) >>> right !== 0;
  return signed
    ? (view, at) => ((word(view, at) as number) << left) >> right
    : (view, at) => ((word(view, at) as number) << left) >>> right;
}
