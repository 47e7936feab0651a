import { DomschedError } from '../error.ts';
import { elementsOf } from './element.ts';
import { encode, wordOf } from './encode.ts';
import { type Reader, readerOf } from './reader.ts';
import type { BitWord, MemberKind, MemberLayout, Scalar } from './types.ts';

/** Facts about a field after its path is resolved. */
export interface FieldFacts {
  /** Structure and path, for messages: `rq.cfs.h_nr_running`. */
  readonly name: string;
  readonly offset: number;
  readonly member: MemberLayout;
  /** Index of the array element in which the path ends, if it does. */
  readonly index?: number;
}

/**
 * A member of a kernel that is known only at run time, resolved once to plain numbers. Keep it: reading through it
 * costs at most a call, some nanoseconds. Offsets count bytes from the start of the structure in which the path began.
 */
export class Field {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly type: string;
  readonly kind: MemberKind;
  readonly signed: boolean | undefined;
  readonly bitSize: number | undefined;
  readonly bits: (BitWord & { readonly mask: number | bigint }) | undefined;
  readonly struct: string | undefined;
  readonly target: string | undefined;
  /** For arrays: number of elements over all dimensions, 0 for a flexible array; otherwise undefined. */
  readonly length: number | undefined;
  /** For arrays: bytes from one element to the next. */
  readonly stride: number | undefined;
  readonly elementKind: MemberKind | undefined;
  /**
   * Reads the value in a structure that begins at byte `at` of a view: a bigint for 8-byte integers and pointers.
   * Throws DomschedError `layout-absent-member` for a member that is no scalar, RangeError outside the view.
   */
  readonly read: Reader;

  constructor({ name, offset, member, index }: FieldFacts) {
    const isElement = index !== undefined;
    this.name = name;
    this.offset = offset;
    this.struct = member.struct;
    this.target = member.target;
    this.signed = member.signed;
    if (isElement) {
      this.size = member.element!.size;
      this.kind = member.element!.kind;
      this.type = member.type.replace(/ ?(?:\[[0-9]*\])+$/, '');
      this.read = readerOf(this, offset) ?? this.#noScalar;
      return;
    }
    this.size = member.size;
    this.kind = member.kind;
    this.type = member.type;
    this.bitSize = member.bitSize;
    this.bits = member.bits && {
      ...member.bits,
      offset: member.bits.offset + offset - member.offset,
      mask: maskOf(member.bits, member.bitSize!),
    };
    if (member.kind === 'array') {
      this.length = elementsOf(member);
      this.stride = member.element?.size;
      this.elementKind = member.element?.kind;
    }
    this.read = readerOf(this, offset) ?? this.#noScalar;
  }

  /**
   * The value as a number; booleans are 0 and 1.
   *
   * @throws DomschedError `guest-inconsistent` if a 64-bit value is not exact as a number
   */
  number(view: DataView, at = 0): number {
    // Two 32-bit reads avoid a BigInt; the result is exact if the high word is within ±2^21.
    if (this.size === 8 && this.bitSize === undefined && (this.kind === 'int' || this.kind === 'pointer')) {
      const high = this.signed
        ? view.getInt32(at + this.offset + 4, true)
        : view.getUint32(at + this.offset + 4, true);
      if (high < 0x200000 && high >= -0x200000)
        return high * 0x1_0000_0000 + view.getUint32(at + this.offset, true);
      throw new DomschedError(
        'guest-inconsistent',
        `${this.name} holds ${this.bigint(view, at)}, which no sane kernel counts to.`,
        { member: this.name },
      );
    }
    return Number(this.read(view, at));
  }

  /** The value as a bigint, for addresses and 64-bit times. */
  bigint(view: DataView, at = 0): bigint {
    const value = this.read(view, at);
    return typeof value === 'bigint' ? value : BigInt(value);
  }

  /**
   * Byte offset of an array element.
   *
   * @throws DomschedError `layout-absent-member` if this is no array; RangeError outside it
   */
  at(index: number): number {
    if (this.length === undefined || this.stride === undefined) {
      throw new DomschedError(
        'layout-absent-member',
        `${this.name} (${this.type}) is no array with known elements.`,
        {
          member: this.name,
        },
      );
    }
    // A flexible array has no length; the buffer that it is read from bounds it.
    if (!Number.isSafeInteger(index) || index < 0 || (index >= this.length && this.length !== 0)) {
      throw new RangeError(`${this.name}[${index}] is outside its ${this.length} elements`);
    }
    return this.offset + this.stride * index;
  }

  /** The bytes that a planned write of this field replaces, counted from the structure's start. */
  get word(): { offset: number; size: number } {
    return wordOf(this);
  }

  /** The bytes of a value for a planned write at {@link word}. See {@link encode}. */
  encode(value: Scalar, old?: Uint8Array): Uint8Array {
    return encode(this, value, old);
  }

  readonly #noScalar: Reader = () => {
    throw new DomschedError(
      'layout-absent-member',
      `${this.name} (${this.type}, ${this.size} bytes) is no single value: name a member or element of it.`,
      { member: this.name, kind: this.kind },
    );
  };
}

/** Mask of the field's bits in its word: a bigint for 8-byte words. */
function maskOf({ size, shift }: BitWord, width: number): number | bigint {
  const mask = ((1n << BigInt(width)) - 1n) << BigInt(shift);
  return size === 8 ? mask : Number(mask);
}
