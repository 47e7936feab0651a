import { isDeepStrictEqual } from 'node:util';
import {
  canonicalName,
  type Enumeration,
  type MemberKind,
  type Structure,
  type StructureMember,
} from './contract.ts';
import { flattenArray, resolve, sizeOf, spell, TypeGraphError } from './ctype.ts';
import { ExtractError } from './error.ts';
import type { EnumNode, FoundRecord, GraphMember, RecordNode, TypeNode, TypeRef } from './graph.ts';

export interface LayoutOptions {
  /** The error code for a type graph that no compiler produces. */
  corrupt: 'corrupt-dwarf' | 'corrupt-btf';
  /**
   * What to do if one name has two different definitions: refuse, or keep later ones as `name___2`, `name___3`, …
   * (libbpf's spelling of a type's flavours), with the original name as `sourceName`.
   */
  onConflict: 'refuse' | 'flavour';
  /**
   * If `Found.where` is a source file: other files that define the structure differently. The error then advises to
   * choose one by its file.
   */
  moreOf?: (name: string) => readonly string[];
}

/**
 * Depth of anonymous structures within each other, and of named ones within each other. Linux 6.12 reaches about ten.
 */
const MAX_NESTING = 64;
/** Members of one structure, including anonymous ones'. BTF allows at most 65,535 in one record. */
const MAX_MEMBERS = 200_000;
/** Members of all structures: more than ten times what the largest Debian kernel has. */
const MAX_TOTAL_MEMBERS = 2_000_000;
const MAX_FLAVOURS = 500;
/** In bytes. Real `struct` sizes are smaller, and offsets in bits stay exact as JavaScript numbers. */
const MAX_SIZE = 2 ** 40;

/**
 * Turns type graphs into the contract's structures.
 *
 * Rules for the output of every engine:
 * - a bit field's `offset` is the byte with its first (least significant) bit, and `bitOffset`, 0 to 7, counts from
 *   there, as `ptype /o` prints it; `size` is the declared type's;
 * - unnamed bit fields are padding and do not appear;
 * - an array of anonymous structures lists the members of element 0;
 * - an array of pointers to structures has `target` too;
 * - `void`, functions and types without a definition are `opaque` and 0 bytes long.
 */
export class LayoutBuilder {
  readonly #options: LayoutOptions;
  readonly #structs = new Map<string, KeptValue<Structure>>();
  readonly #enums = new Map<string, KeptValue<Enumeration>>();
  /** Key of each finished node; null while its members are being built. */
  readonly #names = new Map<RecordNode | EnumNode, string | null>();
  /** The structure that is being added, in the source's spelling. */
  #asked: string | null = null;
  #totalMembers = 0;

  constructor(options: LayoutOptions) {
    this.#options = options;
  }

  /** By canonical name; embedded structures precede those that embed them. */
  structs(): Record<string, Structure> {
    return Object.fromEntries([...this.#structs].map(([name, { value }]) => [name, value]));
  }

  /** Requested enumerations and those that members use, by tag. */
  enums(): Record<string, Enumeration> {
    return Object.fromEntries([...this.#enums].map(([name, { value }]) => [name, value]));
  }

  /**
   * Adds a structure and everything that it embeds. The same definition may come many times, from many units.
   *
   * @returns the key in {@link structs}
   * @throws ExtractError `struct-conflict` for a second, different definition; the options' `corrupt` code for a graph
   *   that no compiler produces
   */
  add(found: FoundRecord): string {
    return this.#guard(found.where, () => {
      const name = found.node.name ?? found.typedef;
      if (!name) throw new TypeGraphError('a structure without a name was asked for');
      this.#asked = name;
      return this.#structure(found.node, name, found.where, 0);
    });
  }

  /** @returns the key in {@link enums}, null for an enumeration without a tag. @throws as {@link add} */
  addEnum(node: EnumNode, where: string): string | null {
    this.#asked = null;
    return this.#guard(where, () => this.#enumeration(node, where));
  }

  #guard<T>(where: string, build: () => T): T {
    try {
      return build();
    } catch (error) {
      if (!(error instanceof TypeGraphError)) throw error;
      throw new ExtractError(
        this.#options.corrupt,
        `the debug information is corrupt at ${where}: ${error.message}; get an intact copy of the file`,
        { where },
        { cause: error },
      );
    }
  }

  #structure(node: RecordNode, sourceName: string, where: string, nesting: number): string {
    const known = this.#names.get(node);
    if (known === null) throw new TypeGraphError(`${node.kind} ${sourceName} contains itself`);
    if (known !== undefined) return known;
    if (nesting > MAX_NESTING) throw new TypeGraphError('structures are nested too deeply');
    checkSize(node.size);
    this.#names.set(node, null);
    const walk: Walk = { where, nesting, members: 0 };
    const members = this.#members(node, 0, 0, walk);
    const structure: Structure = {
      name: canonicalName(sourceName),
      sourceName,
      kind: node.kind,
      size: node.size,
      members,
    };
    const name = this.#keep(this.#structs, structure.name, structure, where, (value, flavour) =>
      value.name === flavour ? value : { ...value, name: flavour },
    );
    this.#names.set(node, name);
    return name;
  }

  #enumeration(node: EnumNode, where: string): string | null {
    const known = this.#names.get(node);
    if (known !== undefined) return known;
    if (node.name === null) return null;
    const values = node.values.map(([name, value]) => [name, numberOrString(value)] as const);
    const enumeration: Enumeration = { size: node.size, values: Object.fromEntries(values) };
    const name = this.#keep(this.#enums, node.name, enumeration, where, (value) => value);
    this.#names.set(node, name);
    return name;
  }

  #keep<T extends Structure | Enumeration>(
    kept: Map<string, KeptValue<T>>,
    name: string,
    value: T,
    where: string,
    as: (value: T, name: string) => T,
  ): string {
    for (let flavour = 1; flavour <= MAX_FLAVOURS; flavour++) {
      const key = flavour === 1 ? name : `${name}___${flavour}`;
      const candidate = as(value, key);
      const earlier = kept.get(key);
      if (!earlier) {
        kept.set(key, { value: candidate, where, asked: this.#asked });
        return key;
      }
      if (earlier.value.size === candidate.size && isDeepStrictEqual(earlier.value, candidate)) return key;
      if (this.#options.onConflict === 'refuse') {
        throw conflict(name, earlier, { value, where, asked: this.#asked }, this.#options.moreOf);
      }
    }
    throw new TypeGraphError(`${name} has more than ${MAX_FLAVOURS} different definitions`);
  }

  /** @param baseBits start of `record` within the named structure, in bits */
  #members(record: RecordNode, baseBits: number, depth: number, walk: Walk): StructureMember[] {
    if (depth > MAX_NESTING) throw new TypeGraphError('anonymous structures are nested too deeply');
    const members: StructureMember[] = [];
    for (const member of record.members) {
      // In C, unnamed bit fields are only padding.
      if (member.name === null && member.bitSize !== undefined) continue;
      walk.members++;
      this.#totalMembers++;
      if (walk.members > MAX_MEMBERS || this.#totalMembers > MAX_TOTAL_MEMBERS) {
        throw new TypeGraphError('it has more members than any kernel');
      }
      members.push(this.#member(member, baseBits, record, depth, walk));
    }
    return members;
  }

  #member(
    source: GraphMember,
    baseBits: number,
    record: RecordNode,
    depth: number,
    walk: Walk,
  ): StructureMember {
    const what = source.name ?? 'an anonymous member';
    const bits = baseBits + source.bitOffset;
    const facts = this.#describe(source.type, bits, depth, walk);
    const width = source.bitSize ?? facts.size * 8;
    // Check against its own record, not the named structure: element 0 of a flexible array lies beyond that.
    if (!(Number.isSafeInteger(bits) && bits >= baseBits && bits + width <= baseBits + record.size * 8)) {
      throw new TypeGraphError(`${what} lies outside its structure`);
    }
    if (source.bitSize === undefined) {
      if (bits % 8) throw new TypeGraphError(`${what} does not begin at a byte`);
      return { name: source.name, offset: bits / 8, ...facts };
    }
    if (!(Number.isInteger(source.bitSize) && source.bitSize > 0 && source.bitSize <= facts.size * 8)) {
      throw new TypeGraphError(`bit field ${what} is wider than its type`);
    }
    const { size, ...rest } = facts;
    return {
      name: source.name,
      offset: Math.floor(bits / 8),
      size,
      bitOffset: bits % 8,
      bitSize: source.bitSize,
      ...rest,
    };
  }

  #describe(ref: TypeRef, bits: number, depth: number, walk: Walk): MemberFacts {
    const { dims, element } = flattenArray(ref);
    const node = resolve(element);
    const elementSize = sizeOf(element);
    checkSize(elementSize);
    const size = dims.length ? sizeOf(ref) : elementSize;
    const facts: MemberFacts = { size, type: spell(ref), kind: dims.length ? 'array' : kindOf(node) };
    if (node.kind === 'base' && (node.encoding === 'signed' || node.encoding === 'char')) facts.signed = true;
    else if (node.kind === 'base' && (node.encoding === 'unsigned' || node.encoding === 'uchar')) {
      facts.signed = false;
    } else if (node.kind === 'enum' && node.signed !== null) facts.signed = node.signed;
    if (dims.length) {
      facts.dims = dims;
      facts.element = { kind: kindOf(node), size: elementSize };
    }
    if (node.kind === 'struct' || node.kind === 'union') {
      if (node.name === null) facts.members = this.#members(node, bits, depth + 1, walk);
      else facts.struct = this.#structure(node, node.name, walk.where, walk.nesting + 1);
    } else if (node.kind === 'pointer') {
      const target = resolve(node.to);
      const tag = target.kind === 'forward' && target.tag === 'enum' ? null : tagOf(target);
      if (tag !== null) facts.target = canonicalName(tag);
    } else if (node.kind === 'enum') {
      const tag = this.#enumeration(node, walk.where);
      if (tag !== null) facts.enum = tag;
    }
    return facts;
  }
}

type ResolvedMember = ReturnType<typeof resolve>;
type MemberFacts = Omit<StructureMember, 'name' | 'offset' | 'bitOffset' | 'bitSize'>;

interface KeptValue<T> {
  value: T;
  where: string;
  /** The requested structure that it came with. */
  asked: string | null;
}

/** State while one named structure is built. */
interface Walk {
  where: string;
  nesting: number;
  members: number;
}

function kindOf(node: ResolvedMember): MemberKind {
  switch (node.kind) {
    case 'base':
      if (node.encoding === 'bool' || node.encoding === 'float') return node.encoding;
      return 'int';
    case 'pointer':
    case 'struct':
    case 'union':
    case 'enum':
      return node.kind;
    default:
      return 'opaque';
  }
}

function tagOf(node: TypeNode): string | null {
  return node.kind === 'struct' || node.kind === 'union' || node.kind === 'forward' ? node.name : null;
}

function checkSize(size: number): void {
  if (!(Number.isInteger(size) && size >= 0 && size <= MAX_SIZE)) {
    throw new TypeGraphError(`a size of ${size} bytes is impossible`);
  }
}

function numberOrString(value: bigint): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}

function conflict<T extends Structure | Enumeration>(
  name: string,
  first: KeptValue<T>,
  second: KeptValue<T>,
  moreOf: LayoutOptions['moreOf'],
) {
  const all = `take them all with --all, which calls the second ${name}___2`;
  const files = new Set([first.where, second.where]);
  const { asked } = second;
  if (moreOf && asked !== null && asked === first.asked) for (const where of moreOf(asked)) files.add(where);
  // A file name cannot distinguish two definitions in one file, nor structures that either one embeds.
  const choices =
    moreOf && asked !== null && asked === first.asked && first.where !== second.where
      ? `${[...files].map((file) => `--struct ${shellWord(`${asked}@${file}`)}`).join(' or ')} takes one of them; `
      : '';
  return new ExtractError(
    'struct-conflict',
    `${name} has two different definitions: ${first.value.size} bytes in ${first.where}, ` +
      `${second.value.size} bytes in ${second.where}${firstDifference(first.value, second.value)}; ${choices}${all}`,
    { name, first: first.where, second: second.where, ...(choices === '' ? {} : { files: [...files] }) },
  );
}

function firstDifference(first: Structure | Enumeration, second: Structure | Enumeration): string {
  if (!('members' in first && 'members' in second)) return '';
  const length = Math.max(first.members.length, second.members.length);
  for (let index = 0; index < length; index++) {
    const [a, b] = [first.members[index], second.members[index]];
    if (!isDeepStrictEqual(a, b)) return `, where ${shortMember(a)} stands against ${shortMember(b)}`;
  }
  return '';
}

function shortMember(member: StructureMember | undefined): string {
  return member ? `"${member.type} ${member.name ?? ''}" at ${member.offset}` : 'no member';
}

/** Quotes a word for the shell. */
function shellWord(word: string): string {
  return /^[\w./@+:-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
