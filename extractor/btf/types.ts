import type { NameMatcher } from '../elf/name-matcher.ts';
import { ExtractError } from '../error.ts';
import type { EnumNode, GraphMember, RecordNode, TypeNode, TypeRef } from '../graph.ts';
import {
  BTF_HEADER_SIZE,
  BTF_MAGIC,
  BTF_TYPE_SIZE,
  BTF_VERSION,
  INT_BOOL,
  INT_CHAR,
  INT_SIGNED,
  KIND,
  TRAILER,
} from './format.ts';

/** x86-64; BTF does not say how long a pointer is. */
const POINTER_SIZE = 8;
/** The kernel refuses type ids beyond 2^20 (BTF_MAX_TYPE), and more so would we. */
const MAX_TYPES = 2 ** 20;
/** Longest name believed; KSYM_NAME_LEN of the kernel is 512. */
const MAX_NAME = 1024;
const MAX_TAGS = 64;
const FLOATS: ReadonlySet<string> = new Set(['float', 'double', 'long double']);

/** A variable in a section (BTF_KIND_DATASEC): byte offset within the section and size. */
export interface SectionVariable {
  name: string;
  offset: number;
  size: number;
}

/**
 * The types of one BTF blob. Only the place of each type is read at first; a type is decoded when it is asked
 * for, and the same id always gives the same node.
 */
export class BtfTypes {
  readonly #view: DataView;
  readonly #bytes: Buffer;
  /** File name for messages. */
  readonly #path: string;
  /** Where type `id` starts, in bytes from the start of the blob; entry 0 stands for void. */
  readonly #places: Uint32Array;
  /** Ids of the DATASEC types. */
  readonly #sections: number[] = [];
  /** Ids of the INT types. */
  readonly #integers: number[] = [];
  #enumsSaySign = false;
  #charsSaySign = false;
  readonly #strings: { start: number; end: number };
  readonly #nodes = new Map<number, TypeNode>();

  /**
   * @param blob the `.BTF` section, or all of `/sys/kernel/btf/vmlinux`
   * @param path named in messages
   * @throws ExtractError `corrupt-btf` with the byte `offset` of what is wrong; `wrong-architecture` for big-endian
   */
  constructor(blob: Uint8Array, path: string) {
    this.#path = path;
    this.#bytes = Buffer.from(blob.buffer, blob.byteOffset, blob.length);
    this.#view = new DataView(blob.buffer, blob.byteOffset, blob.length);
    const { types, strings } = this.#header();
    this.#strings = strings;
    this.#places = this.#index(types.start, types.end);
    this.#charsSaySign = this.#integers.some((id) => this.name(id) === 'signed char' && this.#isSigned(id));
  }

  /**
   * Whether the sign of enumerations is written down. "bpf: btf: Add kind_flag support for BTF_KIND_ENUM", 6.0-rc1,
   * brought a flag for it, and ENUM64 with it; in a kernel without either the encoder (pahole before 1.24) knew none.
   */
  get enumsSaySign(): boolean {
    return this.#enumsSaySign;
  }

  /** Whether the sign of `char` is: encoders that do not call `signed char` signed (pahole 1.20 is one) call none so. */
  get charsSaySign(): boolean {
    return this.#charsSaySign;
  }

  /** Ids are 1 to `count`. */
  get count(): number {
    return this.#places.length - 1;
  }

  /** BTF_KIND_* of a type. */
  kind(id: number): number {
    return (this.#u32(this.#places[id]! + 4) >>> 24) & 0x1f;
  }

  /** Name of a type, null for an anonymous one. */
  name(id: number): string | null {
    const place = this.#places[id]!;
    return this.#string(this.#u32(place), place);
  }

  /** Name of a type where it is one of the matcher's, else null. */
  wantedName(id: number, names: NameMatcher): string | null {
    const start = this.#nameStart(id);
    const name = names.match(this.#bytes, start);
    return name !== null && this.#bytes[start + name.length] === 0 ? name : null;
  }

  isAnonymous(id: number): boolean {
    return this.#bytes[this.#nameStart(id)] === 0;
  }

  /** The type a TYPEDEF names, qualifiers and tags between left out; 0 for void. */
  typedefTarget(id: number): number {
    return this.#behindTags(this.#u32(this.#places[id]! + 8), this.#places[id]!);
  }

  /** The type graph's node of a type; id 0 is void. @throws ExtractError `corrupt-btf` */
  node(id: number): TypeNode {
    let node = this.#nodes.get(id);
    if (!node) {
      node = this.#decode(id);
      this.#nodes.set(id, node);
    }
    return node;
  }

  /** A STRUCT or UNION. */
  record(id: number): RecordNode {
    return this.node(id) as RecordNode;
  }

  /** An ENUM or ENUM64. */
  enumeration(id: number): EnumNode {
    return this.node(id) as EnumNode;
  }

  /** The variables of the section `name`, or null where the blob describes no such section. */
  section(name: string): SectionVariable[] | null {
    const id = this.#sections.find((section) => this.name(section) === name);
    return id === undefined ? null : this.#variables(id);
  }

  #variables(id: number): SectionVariable[] {
    const place = this.#places[id]!;
    const variables: SectionVariable[] = [];
    for (let index = 0; index < this.#vlen(place); index++) {
      const at = place + BTF_TYPE_SIZE + index * 12;
      const variable = this.#u32(at);
      if (!this.#exists(variable) || this.kind(variable) !== KIND.VAR) {
        throw this.#corrupt(at, `type ${variable} is no variable`);
      }
      const name = this.name(variable);
      if (name === null) throw this.#corrupt(this.#places[variable]!, 'a variable has no name');
      variables.push({ name, offset: this.#u32(at + 4), size: this.#u32(at + 8) });
    }
    return variables;
  }

  #header(): Record<'types' | 'strings', { start: number; end: number }> {
    const size = this.#bytes.length;
    if (size < BTF_HEADER_SIZE) throw this.#corrupt(0, `${size} bytes are too few for a header`);
    const magic = this.#view.getUint16(0, true);
    if (magic === ((BTF_MAGIC << 8) | (BTF_MAGIC >> 8)) % 2 ** 16) {
      throw new ExtractError(
        'wrong-architecture',
        `${this.#path} has big-endian BTF; only x86-64 kernels can be read`,
        { file: this.#path },
      );
    }
    if (magic !== BTF_MAGIC) throw this.#corrupt(0, `magic number 0x${magic.toString(16)} instead of 0xeb9f`);
    const version = this.#view.getUint8(2);
    if (version !== BTF_VERSION) throw this.#corrupt(2, `version ${version} instead of ${BTF_VERSION}`);
    const headerSize = this.#u32(4);
    if (headerSize < BTF_HEADER_SIZE || headerSize > size) {
      throw this.#corrupt(4, `a header of ${headerSize} bytes`);
    }
    const range = (field: number, what: string) => {
      const start = headerSize + this.#u32(field);
      const end = start + this.#u32(field + 4);
      if (end > size) throw this.#corrupt(field, `${what} end at byte ${end} of ${size}`);
      return { start, end };
    };
    const types = range(8, 'types');
    if (types.start % 4) throw this.#corrupt(8, 'types do not begin at a multiple of 4');
    const strings = range(16, 'strings');
    if (
      strings.start === strings.end ||
      this.#bytes[strings.start] !== 0 ||
      this.#bytes[strings.end - 1] !== 0
    ) {
      throw this.#corrupt(strings.start, 'strings do not begin and end with a zero byte');
    }
    return { types, strings };
  }

  #index(start: number, end: number): Uint32Array {
    const places = new Uint32Array(Math.min(MAX_TYPES, Math.floor((end - start) / BTF_TYPE_SIZE)) + 1);
    let count = 0;
    for (let at = start; at < end; ) {
      if (at + BTF_TYPE_SIZE > end) throw this.#corrupt(at, 'the last type is cut off');
      if (count + 1 >= places.length) throw this.#corrupt(at, `more than ${MAX_TYPES} types`);
      const kind = (this.#u32(at + 4) >>> 24) & 0x1f;
      const trailer = TRAILER[kind];
      if (!trailer) throw this.#corrupt(at + 4, `unknown kind ${kind} of type ${count + 1}`);
      places[++count] = at;
      if (kind === KIND.DATASEC) this.#sections.push(count);
      else if (kind === KIND.INT) this.#integers.push(count);
      else if (kind === KIND.ENUM64 || (kind === KIND.ENUM && this.#flag(at))) this.#enumsSaySign = true;
      const next = at + BTF_TYPE_SIZE + trailer[0] + trailer[1] * this.#vlen(at);
      if (next > end) throw this.#corrupt(at, `type ${count} reaches beyond the last one`);
      at = next;
    }
    return places.subarray(0, count + 1);
  }

  #decode(id: number): TypeNode {
    if (id === 0) return { kind: 'void' };
    const place = this.#places[id]!;
    const flag = this.#flag(place);
    const third = this.#u32(place + 8);
    const kind = this.kind(id);
    switch (kind) {
      case KIND.INT:
        return this.#int(id, third);
      case KIND.FLOAT:
        return { kind: 'base', name: this.#required(id), size: third, encoding: 'float' };
      case KIND.PTR:
        return { kind: 'pointer', size: POINTER_SIZE, to: this.#ref(third, place + 8) };
      case KIND.TYPEDEF:
        return { kind: 'typedef', name: this.#required(id), of: this.#ref(third, place + 8) };
      case KIND.VOLATILE:
        return { kind: 'volatile', of: this.#ref(third, place + 8) };
      case KIND.CONST:
        return { kind: 'const', of: this.#ref(third, place + 8) };
      case KIND.RESTRICT:
        return { kind: 'restrict', of: this.#ref(third, place + 8) };
      case KIND.ARRAY: {
        const count = this.#u32(place + 20);
        // BTF writes 0 for `[]` as for the older `[0]`.
        return { kind: 'array', of: this.#ref(this.#u32(place + 12), place + 12), dims: [count || null] };
      }
      case KIND.STRUCT:
      case KIND.UNION:
        return {
          kind: kind === KIND.STRUCT ? 'struct' : 'union',
          name: this.name(id),
          size: third,
          members: this.#members(place, flag),
        };
      case KIND.ENUM:
      case KIND.ENUM64:
        return {
          kind: 'enum',
          name: this.name(id),
          size: third,
          signed: this.#enumsSaySign ? flag : null,
          // Without the flag a value is what the format called it before: an __s32.
          values: this.#enumerators(place, kind, flag || !this.#enumsSaySign),
        };
      case KIND.FWD:
        return { kind: 'forward', tag: flag ? 'union' : 'struct', name: this.#required(id) };
      case KIND.FUNC_PROTO:
        return this.#prototype(place);
      default:
        throw this.#corrupt(place, `type ${id} of kind ${kind} is used as the type of data`);
    }
  }

  #int(id: number, size: number): TypeNode {
    const encoding = this.#encoding(id);
    const name = this.#required(id);
    // Encoders that do not write BTF_KIND_FLOAT write C's floating types as integers of the same name.
    if (encoding === 0 && FLOATS.has(name)) return { kind: 'base', name, size, encoding: 'float' };
    if (!this.#charsSaySign && encoding === 0 && name === 'char') {
      return { kind: 'base', name, size, encoding: 'char?' };
    }
    const signed = this.#isSigned(id) || name === 'signed char';
    let kind: 'signed' | 'unsigned' | 'bool' | 'char' | 'uchar' = signed ? 'signed' : 'unsigned';
    if (encoding & INT_BOOL) kind = 'bool';
    else if (encoding & INT_CHAR) kind = signed ? 'char' : 'uchar';
    return { kind: 'base', name, size, encoding: kind };
  }

  #encoding(id: number): number {
    return (this.#u32(this.#places[id]! + 12) >>> 24) & 0xf;
  }

  #isSigned(id: number): boolean {
    return (this.#encoding(id) & INT_SIGNED) !== 0;
  }

  #members(place: number, bitFields: boolean): GraphMember[] {
    const members: GraphMember[] = [];
    for (let index = 0; index < this.#vlen(place); index++) {
      const at = place + BTF_TYPE_SIZE + index * 12;
      const type = this.#u32(at + 4);
      const offset = this.#u32(at + 8);
      const member: GraphMember = {
        name: this.#string(this.#u32(at), at),
        bitOffset: bitFields ? offset & 0xff_ffff : offset,
        type: this.#ref(type, at + 4),
      };
      if (bitFields) {
        if (offset >>> 24) member.bitSize = offset >>> 24;
      } else this.#oldBitField(member, type, at + 4);
      members.push(member);
    }
    return members;
  }

  /** Before kind_flag (Linux 5.0, pahole 1.13) a bit field was a member of an integer type of fewer bits. */
  #oldBitField(member: GraphMember, type: number, at: number): void {
    let id = this.#behindTags(type, at);
    for (let steps = 0; steps < MAX_TAGS && id !== 0 && this.kind(id) === KIND.TYPEDEF; steps++) {
      id = this.typedefTarget(id);
    }
    if (id === 0 || this.kind(id) !== KIND.INT) return;
    const place = this.#places[id]!;
    const data = this.#u32(place + 12);
    const bits = data & 0xff;
    if (bits === this.#u32(place + 8) * 8) return;
    member.bitOffset += (data >>> 16) & 0xff;
    member.bitSize = bits;
  }

  #enumerators(place: number, kind: number, signed: boolean): [string, bigint][] {
    const values: [string, bigint][] = [];
    const each = kind === KIND.ENUM64 ? 12 : 8;
    for (let index = 0; index < this.#vlen(place); index++) {
      const at = place + BTF_TYPE_SIZE + index * each;
      const name = this.#string(this.#u32(at), at);
      if (name === null) throw this.#corrupt(at, 'an enumerator has no name');
      const bits = each * 8 - 32;
      const raw = BigInt(this.#u32(at + 4)) | (bits === 64 ? BigInt(this.#u32(at + 8)) << 32n : 0n);
      values.push([name, signed ? BigInt.asIntN(bits, raw) : raw]);
    }
    return values;
  }

  #prototype(place: number): TypeNode {
    const parameters: TypeRef[] = [];
    const count = this.#vlen(place);
    let variadic = false;
    for (let index = 0; index < count; index++) {
      const at = place + BTF_TYPE_SIZE + index * 8;
      const type = this.#u32(at + 4);
      // A last parameter without name and type is the ellipsis.
      if (type === 0 && index === count - 1 && this.#u32(at) === 0) variadic = true;
      else parameters.push(this.#ref(type, at + 4));
    }
    return { kind: 'function', returns: this.#ref(this.#u32(place + 8), place + 8), parameters, variadic };
  }

  /** @param at where the reference stands, for the message should it be wrong */
  #ref(id: number, at: number): TypeRef {
    return () => this.node(this.#behindTags(id, at, false));
  }

  /** Follows TYPE_TAGs, which say nothing of the layout, and qualifiers where asked to. */
  #behindTags(id: number, at: number, qualifiers = true): number {
    let target = id;
    for (let steps = 0; steps < MAX_TAGS; steps++) {
      if (target === 0) return 0;
      if (!this.#exists(target)) {
        throw this.#corrupt(
          at,
          `type ${target} of ${this.count} does not exist (BTF of a module needs its kernel's)`,
        );
      }
      const kind = this.kind(target);
      const transparent =
        kind === KIND.TYPE_TAG ||
        (qualifiers && (kind === KIND.CONST || kind === KIND.VOLATILE || kind === KIND.RESTRICT));
      if (!transparent) return target;
      target = this.#u32(this.#places[target]! + 8);
    }
    throw this.#corrupt(at, 'a chain of type tags has no end');
  }

  #exists(id: number): boolean {
    return id >= 1 && id <= this.count;
  }

  /** The type's kind_flag. */
  #flag(place: number): boolean {
    return this.#u32(place + 4) >>> 31 === 1;
  }

  #vlen(place: number): number {
    return this.#u32(place + 4) & 0xffff;
  }

  #required(id: number): string {
    const name = this.name(id);
    if (name === null) throw this.#corrupt(this.#places[id]!, `type ${id} has no name`);
    return name;
  }

  /** Where the name of a type starts in the blob. */
  #nameStart(id: number): number {
    const place = this.#places[id]!;
    return this.#stringStart(this.#u32(place), place);
  }

  #stringStart(offset: number, at: number): number {
    const start = this.#strings.start + offset;
    if (start >= this.#strings.end) throw this.#corrupt(at, `a name at ${offset} is beyond the strings`);
    return start;
  }

  #string(offset: number, at: number): string | null {
    const start = this.#stringStart(offset, at);
    const end = this.#bytes.indexOf(0, start);
    if (end === start) return null;
    if (end - start > MAX_NAME) throw this.#corrupt(at, `a name is ${end - start} bytes long`);
    const name = this.#bytes.toString('latin1', start, end);
    // A name goes into messages and generated code: nothing but printable ASCII is one.
    if (!/^[\x20-\x7e]+$/.test(name)) throw this.#corrupt(start, 'a name has unprintable characters');
    return name;
  }

  #u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  #corrupt(offset: number, what: string): ExtractError {
    return new ExtractError(
      'corrupt-btf',
      `the BTF of ${this.#path} is corrupt at byte ${offset}: ${what}; get an intact copy of the file`,
      { file: this.#path, offset },
    );
  }
}
