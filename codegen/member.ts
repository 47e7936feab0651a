import type { Member, MemberKind, Structure } from '../extractor/contract.ts';
import { type Literal, literal, ownKey, propertyKey } from './names.ts';

/** An anonymous struct or union, whose members the generated module lists flat. */
export interface Anonymous {
  offset: number;
  size: number;
  kind: 'struct' | 'union';
  type: string;
  /** Index of the anonymous member around it. */
  in?: number;
}

/** A member as it is generated: key and initializer. */
export interface Entry {
  name: string;
  initializer: string;
}

export interface Flattened {
  entries: Entry[];
  anonymous: Anonymous[];
  /** Whether an initializer calls `arrayIndex`. */
  indexes: boolean;
}

/** The members of a structure under the names by which C reaches them, with the code that reads each. */
export function flatten(structure: Structure): Flattened {
  const result: Flattened = { entries: [], anonymous: [], indexes: false };
  const visit = (members: readonly Member[], inside: number | undefined): void => {
    for (const member of members) {
      if (member.name !== null) {
        const initializer = memberLiteral(member, structure.size, inside);
        result.indexes ||= initializer.includes('arrayIndex(');
        result.entries.push({ name: member.name, initializer });
      } else if (member.members && member.members.length > 0) {
        const index = result.anonymous.length;
        result.anonymous.push({
          offset: member.offset,
          size: member.size,
          kind: member.kind === 'struct' ? 'struct' : 'union',
          type: member.type,
          ...(inside === undefined ? {} : { in: inside }),
        });
        visit(member.members, index);
      }
    }
  };
  visit(structure.members, undefined);
  return result;
}

function memberLiteral(member: Member, structureSize: number, inside: number | undefined): string {
  const bits = bitAccess(member, structureSize);
  const array = arrayFacts(member);
  const data: Record<string, Literal | undefined> = {
    offset: member.offset,
    size: member.size,
    type: member.type,
    kind: member.kind,
    signed: member.signed,
    bitOffset: member.bitOffset,
    bitSize: member.bitSize,
    bits: bits === null ? undefined : { ...bits },
    dims: member.dims,
    element: member.element && { kind: member.element.kind, size: member.element.size },
    length: array?.length,
    struct: member.struct,
    target: member.target,
    enum: member.enum,
    in: inside,
  };
  const parts = Object.entries(data)
    .filter((part): part is [string, Literal] => part[1] !== undefined)
    .map(([key, value]) => `${key}: ${literal(value)}`);
  if (member.members && member.members.length > 0) {
    parts.push(`members: ${namedMembers(member.members, structureSize)}`);
  }
  parts.push(...accessors(member, bits, array));
  return `{ ${parts.join(', ')} }`;
}

/** Members of a member whose own type has no name: `outer.inner`, anonymous ones inside flattened. */
function namedMembers(members: readonly Member[], structureSize: number): string {
  const printed: string[] = [];
  const visit = (list: readonly Member[]): void => {
    for (const member of list) {
      if (member.name !== null) {
        printed.push(
          `${propertyKey(ownKey(member.name))}: ${memberLiteral(member, structureSize, undefined)}`,
        );
      } else if (member.members) visit(member.members);
    }
  };
  visit(members);
  return printed.length === 0 ? '{}' : `{ ${printed.join(', ')} }`;
}

function accessors(member: Member, bits: BitAccess | null, array: ArrayFacts | null): string[] {
  if (member.bitSize !== undefined) {
    if (!bits) return [];
    const { expression, type } = bitRead(member, bits);
    return [`read: (view: DataView, at = 0): ${type} => ${expression}`];
  }
  if (member.kind === 'array') {
    if (!array) return [];
    const index = `arrayIndex(index, ${array.length})`;
    const offset = `${member.offset} + ${array.stride} * ${index}`;
    const at = `at: (index: number): number => ${offset}`;
    const scalar = scalarRead(array.kind, array.stride, member.signed, `at + ${offset}`);
    return scalar
      ? [at, `read: (view: DataView, index: number, at = 0): ${scalar.type} => ${scalar.expression}`]
      : [at];
  }
  const scalar = scalarRead(member.kind, member.size, member.signed, `at + ${member.offset}`);
  return scalar ? [`read: (view: DataView, at = 0): ${scalar.type} => ${scalar.expression}`] : [];
}

interface Read {
  expression: string;
  type: 'number' | 'bigint' | 'boolean';
}

/** The DataView call that reads a little-endian scalar; null for what is none (structures, 128-bit integers). */
function scalarRead(kind: MemberKind, size: number, signed: boolean | undefined, at: string): Read | null {
  const get = (method: string): string => `view.get${method}(${at}${size === 1 ? '' : ', true'})`;
  switch (kind) {
    case 'bool':
      return size === 1 ? { expression: `${get('Uint8')} !== 0`, type: 'boolean' } : null;
    case 'float':
      return size === 4 || size === 8 ? { expression: get(`Float${size * 8}`), type: 'number' } : null;
    case 'pointer':
      return size === 8 ? { expression: get('BigUint64'), type: 'bigint' } : null;
    case 'int':
    case 'enum':
      if (size === 8) return { expression: get(signed ? 'BigInt64' : 'BigUint64'), type: 'bigint' };
      if (size === 1 || size === 2 || size === 4) {
        return { expression: get(`${signed ? 'Int' : 'Uint'}${size * 8}`), type: 'number' };
      }
      return null;
    default:
      return null;
  }
}

interface ArrayFacts {
  /** Elements over all dimensions; 0 for a flexible array. */
  length: number;
  stride: number;
  kind: MemberKind;
}

function arrayFacts(member: Member): ArrayFacts | null {
  if (member.kind !== 'array' || !member.dims || !member.element) return null;
  const length = member.dims.reduce((product, count) => product * count, 1);
  return Number.isSafeInteger(length)
    ? { length, stride: member.element.size, kind: member.element.kind }
    : null;
}

/** The word through which a bit field is read and written, and where in it the field is. */
export interface BitAccess {
  offset: number;
  size: 1 | 2 | 4 | 8;
  shift: number;
  /** In place, i.e. already shifted; a bigint for 8-byte words. */
  mask: number | bigint;
}

/**
 * The smallest word inside the structure that holds all bits of a field: a write through it touches the fewest
 * neighbours. Null where none of at most 8 bytes does.
 */
export function bitAccess(member: Member, structureSize: number): BitAccess | null {
  if (member.bitSize === undefined) return null;
  const firstBit = member.offset * 8 + (member.bitOffset ?? 0);
  for (const size of [1, 2, 4, 8] as const) {
    const offset = Math.min(firstBit >> 3, structureSize - size);
    const shift = firstBit - offset * 8;
    if (offset < 0 || shift + member.bitSize > size * 8) continue;
    const mask = ((1n << BigInt(member.bitSize)) - 1n) << BigInt(shift);
    return { offset, size, shift, mask: size === 8 ? mask : Number(mask) };
  }
  return null;
}

function bitRead(member: Member, bits: BitAccess): Read {
  const width = member.bitSize!;
  const isBool = member.kind === 'bool';
  const at = `at + ${bits.offset}`;
  if (bits.size === 8) {
    const raw = `view.getBigUint64(${at}, true) >> ${bits.shift}n`;
    const wide = `BigInt.as${member.signed ? 'Int' : 'Uint'}N(${width}, ${raw})`;
    if (isBool) return { expression: `(${wide}) !== 0n`, type: 'boolean' };
    return width <= 53
      ? { expression: `Number(${wide})`, type: 'number' }
      : { expression: wide, type: 'bigint' };
  }
  const raw = `view.getUint${bits.size * 8}(${at}${bits.size === 1 ? '' : ', true'})`;
  if (member.signed) {
    // Shift the field's top bit to bit 31 of JavaScript's 32-bit integers, then down again with its sign.
    const left = 32 - bits.shift - width;
    const moved = left === 0 ? raw : `(${raw} << ${left})`;
    return { expression: `${moved} >> ${32 - width}`, type: 'number' };
  }
  const moved = bits.shift === 0 ? raw : `(${raw} >>> ${bits.shift})`;
  const value = width === 32 ? `${moved} >>> 0` : `${moved} & 0x${(2 ** width - 1).toString(16)}`;
  return isBool ? { expression: `(${value}) !== 0`, type: 'boolean' } : { expression: value, type: 'number' };
}
