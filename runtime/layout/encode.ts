import { DomschedError } from '../error.ts';
import type { BitWord, MemberKind, Scalar } from './types.ts';

/** What {@link encode} needs to know; members of generated layouts and `Field`s have this shape. */
export interface Encodable {
  readonly offset: number;
  readonly size: number;
  readonly type: string;
  readonly kind: MemberKind;
  readonly signed?: boolean | undefined;
  readonly bitSize?: number | undefined;
  readonly bits?: BitWord | undefined;
}

/** The bytes that a write of a member replaces: the member's own, or the word that contains a bit field. */
export function wordOf(member: Encodable): { offset: number; size: number } {
  if (member.bitSize === undefined) return { offset: member.offset, size: member.size };
  if (member.bits) return { offset: member.bits.offset, size: member.bits.size };
  throw unencodable(member, 'its bits lie in no word of at most 8 bytes');
}

/**
 * Encodes a value as little-endian bytes for a planned write at {@link wordOf}; writes nothing.
 *
 * @param old for bit fields: the word's present bytes, whose other bits are kept
 * @throws DomschedError `edit-failed` if the member cannot hold the value
 */
export function encode(member: Encodable, value: Scalar, old?: Uint8Array): Uint8Array {
  const width = member.bitSize ?? member.size * 8;
  const integer = integerOf(member, value, width);
  const { size } = wordOf(member);
  if (member.bitSize === undefined) return littleEndian(integer, size);
  if (old?.byteLength !== size) {
    throw unencodable(
      member,
      `a bit field needs the ${size} bytes around it, not ${old?.byteLength ?? 'none'}`,
    );
  }
  const shift = BigInt(member.bits!.shift);
  const mask = ((1n << BigInt(width)) - 1n) << shift;
  return littleEndian((valueOfBytes(old) & ~mask) | (integer << shift), size);
}

/** The value as the bits to store, checked against the member's range. */
function integerOf(member: Encodable, value: Scalar, width: number): bigint {
  switch (member.kind) {
    case 'bool':
      if (typeof value !== 'boolean') throw unencodable(member, `${value} is no boolean`);
      return value ? 1n : 0n;
    case 'float':
      if (typeof value !== 'number') throw unencodable(member, `${value} is no number`);
      return floatBits(member, value);
    case 'int':
    case 'enum':
    case 'pointer': {
      if (typeof value === 'boolean' || (typeof value === 'number' && !Number.isSafeInteger(value))) {
        throw unencodable(member, `${value} is no integer that is kept exactly`);
      }
      const integer = BigInt(value);
      const signed = member.signed ?? false;
      const low = signed ? -(1n << BigInt(width - 1)) : 0n;
      const high = (1n << BigInt(signed ? width - 1 : width)) - 1n;
      if (integer < low || integer > high) throw unencodable(member, `${integer} is outside ${low}…${high}`);
      return BigInt.asUintN(width, integer);
    }
    default:
      throw unencodable(member, `a ${member.kind} is not written as one value`);
  }
}

function floatBits(member: Encodable, value: number): bigint {
  const view = new DataView(new ArrayBuffer(8));
  if (member.size === 4) view.setFloat32(0, value, true);
  else if (member.size === 8) view.setFloat64(0, value, true);
  else throw unencodable(member, `a ${member.size}-byte float is not written`);
  return view.getBigUint64(0, true);
}

function littleEndian(value: bigint, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
  return bytes;
}

function valueOfBytes(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function unencodable(member: Encodable, why: string): DomschedError {
  return new DomschedError(
    'edit-failed',
    `No write was planned: ${member.type} at offset ${member.offset}: ${why}.`,
    {
      offset: member.offset,
      type: member.type,
    },
  );
}
