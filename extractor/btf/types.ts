import type { NameMatcher } from '../elf/name-matcher.ts';
import { ExtractError } from '../error.ts';
import type { EnumNode, GraphMember, RecordNode, TypeNode, TypeRef } from '../graph.ts';
import {
  BTF_TYPE_SIZE,
  flagOf,
  INT_BOOL,
  INT_CHAR,
  INT_SIGNED,
  KIND,
  kindOf,
  TRAILER,
  vlenOf,
} from './format.ts';
import { type BtfHeader, corrupt, readHeader } from './header.ts';

/** For x86-64; BTF does not store the size of a pointer. */
const POINTER_SIZE = 8;
/** The kernel refuses type ids beyond 2^20 (BTF_MAX_TYPE), and so do we. */
const MAX_TYPES = 2 ** 20;
/** C names are much shorter (KSYM_NAME_LEN of the kernel is 512), but names of generic Rust types are not. */
const LONG_NAME = 1024;
const MAX_NAME = 1 << 16;
/** Bytes of all long names, since many types may share one. */
const MAX_LONG_NAMES = 32 << 20;
const MAX_TAGS = 64;
/** Control and formatting characters, line ends, and the replacement for broken UTF-8. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\ufffd]/u;
const FLOATS: ReadonlySet<string> = new Set(['float', 'double', 'long double']);

/** A variable in a section (BTF_KIND_DATASEC): byte offset within the section and size. */
export interface SectionVariable {
  name: string;
  offset: number;
  size: number;
}

/** One of the blobs that are read. */
interface BtfPart {
  /** File name for messages. */
  path: string;
  start: number;
  header: BtfHeader;
  /** String offset of this part's first string: a module's strings continue its kernel's. */
  firstString: number;
}

/**
 * The types of one BTF blob, or of a module's and its kernel's. At first only the position of each type is read; a type
 * is decoded on demand, and an id always gives the same node.
 */
export class BtfTypes {
  readonly #view: DataView;
  readonly #bytes: Buffer;
  /** First the kernel's, then the module's. */
  readonly #parts: readonly BtfPart[];
  /** Position of each type, in bytes from the start; entry 0 stands for void. */
  readonly #places: Uint32Array;
  /** Id of the first type that is not from the base. */
  readonly firstOwn: number;
  /** Ids of the DATASEC types. */
  readonly #sections: number[];
  /** Ids of the INT types. */
  readonly #integers: number[];
  #enumsSaySign: boolean;
  #charsSaySign = false;
  readonly #nodes = new Map<number, TypeNode>();
  #longNames = 0;

  /**
   * @param blob the `.BTF` section, or all of `/sys/kernel/btf/vmlinux`
   * @param path named in messages
   * @param base the kernel's BTF, for a module's
   * @throws ExtractError `corrupt-btf` with the byte `offset` of the defect; `wrong-architecture` for big-endian;
   *   `unsupported-btf` for kinds newer than this reader; `btf-base` for a module's BTF without its base, or with
   *   another kernel's
   */
  constructor(blob: Uint8Array, path: string, base: BtfTypes | null = null) {
    const header = readHeader(blob, path);
    const own = Buffer.from(blob.buffer, blob.byteOffset, blob.length);
    checkBase(header, path, base);
    // A module's ids continue its kernel's (`btf__parse_split` of libbpf).
    const before = base
      ? { start: base.#bytes.length, firstString: base.#stringsEnd }
      : { start: 0, firstString: 0 };
    const part = { path, header, ...before };
    this.#parts = base ? [...base.#parts, part] : [part];
    this.#bytes = base ? Buffer.concat([base.#bytes, own]) : own;
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length);
    this.#sections = base ? [...base.#sections] : [];
    this.#integers = base ? [...base.#integers] : [];
    this.#enumsSaySign = base ? base.#enumsSaySign : false;
    this.firstOwn = base ? base.count + 1 : 1;
    this.#places = this.#index(part, base ? base.#places : Uint32Array.of(0));
    if (base) this.#checkNames(part);
    this.#charsSaySign = this.#integers.some((id) => this.name(id) === 'signed char' && this.#isSigned(id));
  }

  /**
   * Whether enumerations have a sign. "bpf: btf: Add kind_flag support for BTF_KIND_ENUM", 6.0-rc1, added a flag for
   * it, together with ENUM64; without either, the encoder (pahole before 1.24) did not record it.
   */
  get enumsSaySign(): boolean {
    return this.#enumsSaySign;
  }

  /**
   * Whether `char` has a sign: encoders that do not call `signed char` signed (such as pahole 1.20) never record one.
   */
  get charsSaySign(): boolean {
    return this.#charsSaySign;
  }

  /** Ids are 1 to `count`. */
  get count(): number {
    return this.#places.length - 1;
  }

  /** BTF_KIND_* of a type. */
  kind(id: number): number {
    return kindOf(this.#u32(this.#places[id]! + 4));
  }

  /** Name of a type, null for an anonymous one. */
  name(id: number): string | null {
    const place = this.#places[id]!;
    return this.#string(this.#u32(place), place);
  }

  /** Name of a type if the matcher wants it, otherwise null. */
  wantedName(id: number, names: NameMatcher): string | null {
    const start = this.#nameStart(id);
    const name = names.match(this.#bytes, start);
    return name !== null && this.#bytes[start + Buffer.byteLength(name)] === 0 ? name : null;
  }

  isAnonymous(id: number): boolean {
    return this.#bytes[this.#nameStart(id)] === 0;
  }

  /** The type that a TYPEDEF names, skipping qualifiers and tags; 0 for void. */
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

  /** The variables of the section `name`, or null if the blob does not describe it. */
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

  /** Checks that names of the module's types begin where a string of the base does, or lie among its own. */
  #checkNames(part: BtfPart): void {
    for (let id = this.firstOwn; id <= this.count; id++) {
      const place = this.#places[id]!;
      const offset = this.#u32(place);
      const isInside = offset < this.#stringsEnd;
      if (isInside && (offset === 0 || this.#bytes[this.#stringStart(offset, place) - 1] === 0)) continue;
      if (isInside && offset === part.firstString) continue;
      const base = this.#parts[0]!.path;
      throw new ExtractError(
        'btf-base',
        `the BTF of ${part.path} does not go on where that of ${base} ends (no string begins at ${offset}): it is of ` +
          'another kernel; name the vmlinux of its own with --base',
        { file: part.path, base, offset },
      );
    }
  }

  get #stringsEnd(): number {
    const { firstString, header } = this.#parts.at(-1)!;
    return firstString + header.strings.end - header.strings.start;
  }

  #index({ start: partStart, header }: BtfPart, before: Uint32Array): Uint32Array {
    const [start, end] = [partStart + header.types.start, partStart + header.types.end];
    const most = Math.min(MAX_TYPES + 1, before.length + Math.floor((end - start) / BTF_TYPE_SIZE));
    const places = new Uint32Array(most);
    places.set(before);
    let count = before.length - 1;
    for (let at = start; at < end; ) {
      if (at + BTF_TYPE_SIZE > end) throw this.#corrupt(at, 'the last type is cut off');
      if (count + 1 >= places.length) throw this.#corrupt(at, `more than ${MAX_TYPES} types`);
      const info = this.#u32(at + 4);
      const kind = kindOf(info);
      if (kind === 0) throw this.#corrupt(at + 4, `type ${count + 1} is of no kind`);
      const trailer = TRAILER[kind] ?? header.layout[kind];
      if (!trailer) throw this.#unknownKind(at + 4, kind, count + 1);
      places[++count] = at;
      if (kind === KIND.DATASEC) this.#sections.push(count);
      else if (kind === KIND.INT) this.#integers.push(count);
      else if (kind === KIND.ENUM64 || (kind === KIND.ENUM && flagOf(info))) this.#enumsSaySign = true;
      const next = at + BTF_TYPE_SIZE + trailer[0] + trailer[1] * vlenOf(info);
      if (next > end) throw this.#corrupt(at, `type ${count} reaches beyond the last one`);
      at = next;
    }
    return places.subarray(0, count + 1);
  }

  #unknownKind(at: number, kind: number, id: number): ExtractError {
    const { path, start } = this.#partAt(at);
    return new ExtractError(
      'unsupported-btf',
      `the BTF of ${path} has at byte ${at - start} a type (number ${id}) of kind ${kind}, which is newer than this ` +
        "version of domsched, or damaged; give the vmlinux of the kernel's debug package, which has DWARF",
      { file: path, offset: at - start, kind, type: id },
    );
  }

  #decode(id: number): TypeNode {
    if (id === 0) return { kind: 'void' };
    const place = this.#places[id]!;
    const flag = flagOf(this.#u32(place + 4));
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
        // BTF writes 0 both for `[]` and for the older `[0]`.
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
          // Without the flag a value is what the format defined before: an __s32.
          values: this.#enumerators(place, kind, flag || !this.#enumsSaySign),
        };
      case KIND.FWD:
        return { kind: 'forward', tag: flag ? 'union' : 'struct', name: this.#required(id) };
      case KIND.FUNC_PROTO:
        return this.#prototype(place);
      default:
        if (kind >= TRAILER.length) throw this.#unknownKind(place + 4, kind, id);
        throw this.#corrupt(place, `type ${id} of kind ${kind} is used as the type of data`);
    }
  }

  #int(id: number, size: number): TypeNode {
    const encoding = this.#encoding(id);
    const name = this.#required(id);
    // Encoders without BTF_KIND_FLOAT write C's floating types as integers of the same name.
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

  /** Before kind_flag (Linux 5.0, pahole 1.13) a bit field was a member of an integer type with fewer bits. */
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

  /** @param at position of the reference, for the error message */
  #ref(id: number, at: number): TypeRef {
    return () => this.node(this.#behindTags(id, at, false));
  }

  /** Follows TYPE_TAGs, which do not affect layout, and on request qualifiers. */
  #behindTags(id: number, at: number, qualifiers = true): number {
    let target = id;
    for (let steps = 0; steps < MAX_TAGS; steps++) {
      if (target === 0) return 0;
      if (!this.#exists(target)) {
        throw this.#corrupt(at, `type ${target} of ${this.count} does not exist`);
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

  #vlen(place: number): number {
    return vlenOf(this.#u32(place + 4));
  }

  #required(id: number): string {
    const name = this.name(id);
    if (name === null) throw this.#corrupt(this.#places[id]!, `type ${id} has no name`);
    return name;
  }

  /** Position of a type's name in the blob. */
  #nameStart(id: number): number {
    const place = this.#places[id]!;
    return this.#stringStart(this.#u32(place), place);
  }

  #stringStart(offset: number, at: number): number {
    if (offset >= this.#stringsEnd) throw this.#corrupt(at, `a name at ${offset} is beyond the strings`);
    const { start, header, firstString } = this.#parts.findLast((part) => offset >= part.firstString)!;
    return start + header.strings.start + offset - firstString;
  }

  #string(offset: number, at: number): string | null {
    const start = this.#stringStart(offset, at);
    const end = this.#bytes.indexOf(0, start);
    const length = end - start;
    if (length === 0) return null;
    if (length > LONG_NAME) this.#longNames += length;
    if (length > MAX_NAME) throw this.#corrupt(at, `a name is ${length} bytes long`);
    if (this.#longNames > MAX_LONG_NAMES) throw this.#corrupt(at, 'long names without end');
    const name = this.#bytes.toString('utf8', start, end);
    // Names go into messages and generated code. Invalid UTF-8 has become U+FFFD by now.
    if (UNPRINTABLE.test(name)) throw this.#corrupt(start, 'a name has unprintable characters');
    return name;
  }

  #u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  #partAt(at: number): BtfPart {
    return this.#parts.findLast(({ start }) => at >= start)!;
  }

  #corrupt(at: number, what: string): ExtractError {
    const { path, start } = this.#partAt(at);
    return corrupt(path, at - start, what);
  }
}

function checkBase({ isSplit }: BtfHeader, path: string, base: BtfTypes | null): void {
  if (isSplit === (base !== null)) return;
  throw new ExtractError(
    'btf-base',
    isSplit
      ? `${path} has a module's BTF, which goes on where that of its kernel ends: name a vmlinux or vmlinuz of that ` +
          'kernel with --base (/sys/kernel/btf/vmlinux for the running one)'
      : `${path} has BTF that is whole by itself; leave --base out`,
    { file: path },
  );
}
