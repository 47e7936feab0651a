import { sizeOf, TypeGraphError } from '../ctype.ts';
import type { EnumNode, GraphMember, RecordNode, TypeNode, TypeRef } from '../graph.ts';
import type { DwarfFile } from './dwarf-file.ts';
import { type DwarfRecord, FLAG, TAG } from './record.ts';
import type { Unit } from './unit.ts';

/** Encodings of base types (DWARF 5, table 7.11) other than unsigned integers. */
const ENCODINGS: Readonly<Record<number, 'bool' | 'float' | 'signed' | 'char' | 'uchar'>> = {
  2: 'bool',
  3: 'float', // complex
  4: 'float',
  5: 'signed',
  6: 'char',
  8: 'uchar',
  9: 'float', // imaginary
  13: 'signed', // fixed point
  15: 'float', // decimal
};

/** A declaration leads to the type unit that defines it, never to another declaration. */
const MAX_SIGNATURE_HOPS = 1;

/** Turns entries into nodes of the C type graph, on first request. */
export class TypeReader {
  readonly #dwarf: DwarfFile;

  constructor(dwarf: DwarfFile) {
    this.#dwarf = dwarf;
  }

  /** The type at `offset` of the unit; always the same object. @throws ExtractError `corrupt-dwarf` */
  node(unit: Unit, offset: number): TypeNode {
    const known = unit.nodes.get(offset);
    if (known) return known;
    const node = this.#read(unit, offset, 0);
    unit.nodes.set(offset, node);
    return node;
  }

  #ref(unit: Unit, record: DwarfRecord): TypeRef {
    let node: TypeNode | undefined;
    return () => {
      if (!node) {
        const target = this.#dwarf.typeOf(unit, record);
        node = target ? this.node(target.unit, target.offset) : { kind: 'void' };
      }
      return node;
    };
  }

  #read(unit: Unit, offset: number, hops: number): TypeNode {
    const [type, ...children] = this.#dwarf.tree(unit, offset);
    const of = this.#ref(unit, type);
    switch (type.tag) {
      case TAG.baseType: {
        const encoding = ENCODINGS[type.encoding] ?? 'unsigned';
        return {
          kind: 'base',
          name: type.name ?? '',
          size: this.#number(unit, type, type.byteSize),
          encoding,
        };
      }
      case TAG.pointerType:
      case TAG.referenceType:
      case TAG.rvalueReferenceType: {
        const size =
          type.flags & FLAG.hasByteSize ? this.#number(unit, type, type.byteSize) : unit.addressSize;
        return { kind: 'pointer', size, to: of };
      }
      case TAG.typedef:
        return { kind: 'typedef', name: type.name ?? '', of };
      case TAG.constType:
      case TAG.immutableType:
        return { kind: 'const', of };
      case TAG.volatileType:
        return { kind: 'volatile', of };
      case TAG.restrictType:
        return { kind: 'restrict', of };
      case TAG.atomicType:
        return { kind: 'atomic', of };
      case TAG.arrayType:
        return { kind: 'array', of, dims: this.#dims(unit, children) };
      case TAG.subroutineType:
        return {
          kind: 'function',
          returns: of,
          parameters: children
            .filter(({ tag }) => tag === TAG.formalParameter)
            .map((one) => this.#ref(unit, one)),
          variadic: children.some(({ tag }) => tag === TAG.unspecifiedParameters),
          unprototyped: !(type.flags & FLAG.prototyped),
        };
      case TAG.structureType:
      case TAG.classType:
      case TAG.unionType:
      case TAG.enumerationType:
        return this.#tagged(unit, type, children, hops);
      case TAG.packedType:
      case TAG.subrangeType:
        return of();
      default:
        // Not a C type; only its size matters.
        return type.flags & FLAG.hasByteSize
          ? {
              kind: 'base',
              name: type.name ?? '',
              size: this.#number(unit, type, type.byteSize),
              encoding: 'unsigned',
            }
          : { kind: 'void' };
    }
  }

  #tagged(unit: Unit, type: DwarfRecord, children: DwarfRecord[], hops: number): TypeNode {
    const isEnum = type.tag === TAG.enumerationType;
    const kind = isEnum ? 'enum' : type.tag === TAG.unionType ? 'union' : 'struct';
    if (type.flags & FLAG.externalType && hops < MAX_SIGNATURE_HOPS) {
      const target = this.#dwarf.typeOf(unit, type);
      if (target) return target.unit.nodes.get(target.offset) ?? this.#external(target, hops + 1);
    }
    if (type.flags & (FLAG.declaration | FLAG.externalType)) {
      return { kind: 'forward', tag: kind, name: type.name ?? '' };
    }
    const size = this.#number(unit, type, type.byteSize);
    if (isEnum) return this.#enumeration(unit, type, children, size);
    const members = children
      .filter(({ tag, flags }) => tag === TAG.member && !(flags & FLAG.declaration))
      .map((member) => this.#member(unit, member));
    return { kind, name: type.name, size, members } as RecordNode;
  }

  #external(target: { unit: Unit; offset: number }, hops: number): TypeNode {
    const node = this.#read(target.unit, target.offset, hops);
    target.unit.nodes.set(target.offset, node);
    return node;
  }

  #member(unit: Unit, member: DwarfRecord): GraphMember {
    const { flags, name } = member;
    if (flags & FLAG.badLocation) {
      this.#dwarf.corrupt(unit, member.offset, `member ${name ?? ''} is at no constant offset`);
    }
    const type = this.#ref(unit, member);
    const start = this.#number(unit, member, member.location) * 8;
    if (!(flags & FLAG.hasBitSize)) return { name, bitOffset: start, type };
    const bitSize = this.#number(unit, member, member.bitSize);
    if (flags & FLAG.hasDataBitOffset) {
      return { name, bitOffset: start + this.#number(unit, member, member.dataBitOffset), bitSize, type };
    }
    if (!(flags & FLAG.hasBitOffset)) return { name, bitOffset: start, bitSize, type };
    // DWARF 2 and 3 count from the storage unit's most significant bit (DWARF 3, section 5.6.6).
    const storage =
      flags & FLAG.hasByteSize ? this.#number(unit, member, member.byteSize) : this.#size(unit, member, type);
    return { name, bitOffset: start + storage * 8 - Number(member.bitOffset) - bitSize, bitSize, type };
  }

  #enumeration(unit: Unit, type: DwarfRecord, children: DwarfRecord[], size: number): EnumNode {
    const enumerators = children.filter(({ tag }) => tag === TAG.enumerator);
    const isNegative = ({ flags, value }: DwarfRecord) =>
      Boolean(flags & FLAG.valueIsSigned) && BigInt.asIntN(64, value) < 0n;
    let signed = enumerators.some(isNegative);
    if (type.flags & FLAG.hasType) {
      const underlying = this.#ref(unit, type)();
      signed =
        underlying.kind === 'base' && (underlying.encoding === 'signed' || underlying.encoding === 'char');
    }
    const values = enumerators.map(({ name, value }): [string, bigint] => [
      name ?? '',
      signed ? BigInt.asIntN(64, value) : value,
    ]);
    return { kind: 'enum', name: type.name, size, signed, values };
  }

  #dims(unit: Unit, children: DwarfRecord[]): (number | null)[] {
    const dims = children
      .filter(({ tag }) => tag === TAG.subrangeType || tag === TAG.enumerationType)
      .map((range) => (range.flags & FLAG.hasCount ? this.#number(unit, range, range.count) : null));
    return dims.length ? dims : [null];
  }

  #size(unit: Unit, record: DwarfRecord, type: TypeRef): number {
    try {
      return sizeOf(type);
    } catch (error) {
      if (!(error instanceof TypeGraphError)) throw error;
      this.#dwarf.corrupt(unit, record.offset, error.message);
    }
  }

  #number(unit: Unit, record: DwarfRecord, value: bigint): number {
    const number = Number(value);
    if (number > Number.MAX_SAFE_INTEGER / 8) {
      this.#dwarf.corrupt(unit, record.offset, `${value} is no size or offset`);
    }
    return number;
  }
}
