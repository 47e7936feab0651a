import {
  canonicalName,
  type Enumeration,
  type MemberKind,
  type Structure,
  type StructureMember,
} from '../contract.ts';
import { ExtractError } from '../error.ts';
import { type CDeclaration, parseDeclaration } from './declaration.ts';
import { type PrintedField, type PrintedRecord, PtypeError, parsePtype, placeFields } from './ptype.ts';
import type { GdbSession } from './session.ts';

/** Rounds of questions, each about types mentioned in the previous answers. Linux 6.12 needs about ten. */
const MAX_ROUNDS = 64;
const POINTER_SIZE = 8;

const INTEGER_WORD = /^(?:signed|unsigned|short|long|int|char|__int128)$/;
const FLOAT = /^(?:_Complex |complex )?(?:float|double|long double|_Float\d+x?|__float128)$/;
const TAGGED = /^(struct|union|enum) ([A-Za-z_$][\w$]*)$/;

interface PrintedEnum extends Enumeration {
  signed: boolean;
}

/** A declared type after its typedefs are followed. */
interface ResolvedType {
  dims: number[];
  kind: MemberKind;
  /** Name of the innermost type: a tag, a built-in type, or the typedef of an anonymous structure. */
  base: string;
  signed?: boolean;
  struct?: string;
  target?: string;
  enum?: string;
  anonymous?: PrintedRecord;
}

/** Converts structures as printed by gdb to the contract's form. */
export class GdbTypes {
  readonly #gdb: GdbSession;
  readonly #records = new Map<string, PrintedRecord | null>();
  readonly #typedefs = new Map<string, CDeclaration | null>();
  readonly #enums = new Map<string, PrintedEnum | null>();
  readonly #sizes = new Map<string, number>();
  readonly #usedEnums = new Set<string>();
  #charIsSigned = true;

  constructor(gdb: GdbSession) {
    this.#gdb = gdb;
  }

  /**
   * The structures and enumerations with these names and everything that they embed, by the kernel's names.
   * @throws ExtractError `engine-failed`
   */
  async read(
    structs: readonly string[],
    enums: readonly string[],
  ): Promise<{ structs: Structure[]; enums: Record<string, Enumeration> }> {
    const asked = structs.flatMap((name) => [`struct ${name}`, `union ${name}`]);
    try {
      await this.#answer(new Set([...asked, ...enums.map((tag) => `enum ${tag}`), ...structs]));
      await this.#askCharSign();
      return { structs: this.#structures(structs), enums: this.#enumerations(enums) };
    } catch (error) {
      if (!(error instanceof PtypeError)) throw error;
      throw new ExtractError(
        'engine-failed',
        `${error.message}, which this version cannot read; use --engine dwarf`,
        {
          engine: 'gdb',
        },
      );
    }
  }

  /** Values of enumerators in enumerations without a tag; others are left out. @throws ExtractError `engine-failed` */
  async constants(names: readonly string[]): Promise<Record<string, number>> {
    const answers = await this.#gdb.ask(names.flatMap((name) => [`output/d ${name}`, `whatis ${name}`]));
    const known = names
      .map((name) => [name, answers.get(`output/d ${name}`)] as const)
      .filter(([name, text]) => text && /^-?\d+$/.test(text) && isUntagged(answers.get(`whatis ${name}`)));
    return Object.fromEntries(known.map(([name, text]) => [name, Number(text)]));
  }

  /** Asks about the given types, then about types that the answers mention, until none is left. */
  async #answer(first: ReadonlySet<string>): Promise<void> {
    let open = first;
    for (let round = 0; open.size > 0; round++) {
      if (round === MAX_ROUNDS) throw new PtypeError('gdb printed types without end');
      const questions = [...open].flatMap(questionsAbout);
      const answers = await this.#gdb.ask(questions);
      const mentioned = new Set<string>();
      for (const type of open) this.#take(type, answers, mentioned);
      open = new Set([...mentioned].filter((type) => !this.#isKnown(type)));
    }
  }

  /** `char` is unsigned in kernels built with -funsigned-char (all since 6.2), which printed types do not show. */
  async #askCharSign(): Promise<void> {
    for (const [type, record] of this.#records) {
      if (!record || !TAGGED.test(type)) continue;
      const field = record.fields.find(
        ({ declaration: { base, shape } }) => base === 'char' && shape === 'plain',
      );
      if (!field) continue;
      const element = `((${type} *)0)->${field.declaration.name}${field.declaration.dims.map(() => '[0]').join('')}`;
      // The sum is an int, because gdb prints a bare char as signed.
      const question = `output/d (__typeof__(${element}))-1 + 0`;
      this.#charIsSigned = (await this.#gdb.ask([question])).get(question) === '-1';
      return;
    }
  }

  #isKnown(type: string): boolean {
    return isBuiltin(type) || this.#records.has(type) || this.#enums.has(type) || this.#typedefs.has(type);
  }

  #take(type: string, answers: ReadonlyMap<string, string | null>, mentioned: Set<string>): void {
    const size = answers.get(`output/d sizeof(${type})`);
    if (size && /^\d+$/.test(size)) this.#sizes.set(type, Number(size));
    const tagged = TAGGED.exec(type);
    if (tagged?.[1] === 'enum') {
      const text = answers.get(`ptype ${type}`);
      this.#enums.set(type, text ? parseEnum(text, this.#sizes.get(type) ?? 0) : null);
    } else if (tagged) {
      const text = answers.get(`ptype /o ${type}`);
      this.#takeRecord(type, text && !text.includes('<incomplete type>') ? text : null, mentioned);
    } else {
      const text = answers.get(`whatis ${type}`);
      const declaration = text ? parseDeclaration(text.replace(/^type = /, ''), false) : null;
      this.#typedefs.set(type, declaration?.type === type ? null : declaration);
      if (!declaration) return;
      if (/^(?:struct|union) \{\.\.\.\}$/.test(declaration.type)) {
        this.#takeRecord(type, answers.get(`ptype /o ${type}`) ?? null, mentioned);
      } else mention(declaration, mentioned);
    }
  }

  #takeRecord(type: string, text: string | null, mentioned: Set<string>): void {
    const record = text ? parsePtype(text) : null;
    this.#records.set(type, record);
    const visit = (one: PrintedRecord) => {
      for (const { declaration, record: inner } of one.fields) {
        if (inner && inner.tag === null) visit(inner);
        else mention(declaration, mentioned);
      }
    };
    if (record) visit(record);
  }

  /** The requested structures and everything that they embed, but not what they only point to. */
  #structures(names: readonly string[]): Structure[] {
    const types = new Set<string>();
    for (const name of names) {
      const tagged = [`struct ${name}`, `union ${name}`].filter((type) => this.#records.get(type));
      // A typedef's name counts if no structure has it as its tag.
      for (const type of tagged.length ? tagged : [name]) types.add(type);
    }
    const structures: Structure[] = [];
    for (const type of types) {
      const record = this.#records.get(type);
      if (!record) continue;
      const sourceName = TAGGED.exec(type)?.[2] ?? type;
      const members = this.#members(record, 0, (embedded) => types.add(embedded));
      structures.push({
        name: canonicalName(sourceName),
        sourceName,
        kind: record.kind,
        size: record.size,
        members,
      });
    }
    return structures;
  }

  #enumerations(asked: readonly string[]): Record<string, Enumeration> {
    const types = new Set([...asked.map((tag) => `enum ${tag}`), ...this.#usedEnums]);
    const found: Record<string, Enumeration> = {};
    for (const type of types) {
      const known = this.#enums.get(type);
      if (known) found[type.slice('enum '.length)] = { size: known.size, values: known.values };
    }
    return found;
  }

  /** @param embed is called with each named type that is embedded */
  #members(record: PrintedRecord, base: number, embed: (type: string) => void): StructureMember[] {
    const offsets = placeFields(record);
    const build = (one: PrintedRecord): StructureMember[] =>
      one.fields.map((field) => this.#member(field, one.kind, base + offsets.get(field)!, build, embed));
    return build(record);
  }

  #member(
    field: PrintedField,
    parent: 'struct' | 'union',
    offset: number,
    build: (record: PrintedRecord) => StructureMember[],
    embed: (type: string) => void,
  ): StructureMember {
    const { declaration, size } = field;
    const { dims, base, kind, anonymous, ...facts } = this.#resolve(declaration);
    if (facts.struct !== undefined) embed(base);
    if (facts.enum !== undefined) this.#usedEnums.add(base);
    const member: StructureMember = {
      name: declaration.name,
      offset,
      size,
      type: declaration.type,
      kind,
      ...facts,
    };
    if (declaration.bitSize !== null) {
      member.bitSize = declaration.bitSize;
      // gdb prints no positions in unions: all members begin at the start.
      member.bitOffset = parent === 'union' ? 0 : (field.bitOffset ?? 0);
    }
    if (dims.length) {
      const count = dims.reduce((product, dim) => product * dim, 1);
      const element = count ? size / count : kind === 'pointer' ? POINTER_SIZE : (this.#sizes.get(base) ?? 0);
      member.kind = 'array';
      member.dims = dims;
      member.element = { kind, size: element };
    }
    if (field.record && field.record.tag === null) member.members = build(field.record);
    else if (anonymous) member.members = this.#members(anonymous, offset, embed);
    return member;
  }

  #resolve(declaration: CDeclaration): ResolvedType {
    const dims: number[] = [];
    for (let one = declaration, steps = 0; steps < MAX_ROUNDS; steps++) {
      dims.push(...one.dims);
      const { base, shape } = one;
      if (shape !== 'plain') {
        const target = shape === 'pointer' ? this.#target(base) : null;
        return { dims, kind: 'pointer', base, ...(target !== null && { target }) };
      }
      const [, keyword, tag] = TAGGED.exec(base) ?? [];
      if (keyword === 'enum') {
        const known = this.#enums.get(base);
        return { dims, kind: 'enum', base, signed: known?.signed ?? false, enum: tag! };
      }
      if (keyword) {
        if (!this.#records.get(base)) return { dims, kind: 'opaque', base };
        return { dims, kind: keyword as 'struct' | 'union', base, struct: canonicalName(tag!) };
      }
      if (base === 'enum {...}') return { dims, kind: 'enum', base, signed: one.negative };
      if (base === 'struct {...}') return { dims, kind: 'struct', base };
      if (base === 'union {...}') return { dims, kind: 'union', base };
      if (base === '_Bool') return { dims, kind: 'bool', base };
      if (FLOAT.test(base)) return { dims, kind: 'float', base };
      if (isInteger(base)) {
        const signed = base === 'char' ? this.#charIsSigned : !base.includes('unsigned');
        return { dims, kind: 'int', base, signed };
      }
      const anonymous = this.#records.get(base);
      if (anonymous) return { dims, kind: anonymous.kind, base, anonymous };
      const next = this.#typedefs.get(base);
      if (!next) break;
      one = next;
    }
    const { base } = declaration;
    if (base === 'void' || base.includes('(')) return { dims, kind: 'opaque', base };
    return { dims, kind: 'int', base, signed: false };
  }

  /** Canonical name of the structure that a pointer to `base` points to. */
  #target(base: string): string | null {
    let type = base;
    for (let steps = 0; steps < MAX_ROUNDS; steps++) {
      const [, keyword, tag] = TAGGED.exec(type) ?? [];
      if (keyword) return keyword === 'enum' ? null : canonicalName(tag!);
      const next = this.#typedefs.get(type);
      if (next?.shape !== 'plain' || next.dims.length) return null;
      type = next.base;
    }
    return null;
  }
}

function questionsAbout(type: string): string[] {
  const size = `output/d sizeof(${type})`;
  if (type.startsWith('enum ')) return [`ptype ${type}`, size];
  if (TAGGED.test(type)) return [`ptype /o ${type}`, size];
  return [`whatis ${type}`, `ptype /o ${type}`, size];
}

/** @param answer of `whatis` about an enumerator */
function isUntagged(answer: string | null | undefined): boolean {
  return answer?.startsWith('type = enum {') ?? false;
}

function isInteger(type: string): boolean {
  return type.split(' ').every((word) => INTEGER_WORD.test(word));
}

/** Types that need no question to gdb. */
function isBuiltin(type: string): boolean {
  return type === 'void' || type.includes('{') || type.includes('(') || !/^[\w$ ]+$/.test(type);
}

/** Adds the innermost type of a declaration, if its definition matters. */
function mention({ base, shape }: CDeclaration, mentioned: Set<string>): void {
  if (shape === 'plain') mentioned.add(base);
  // Behind one pointer only the tag matters, which a typedef may hide.
  else if (shape === 'pointer' && !TAGGED.test(base) && !isInteger(base)) mentioned.add(base);
}

/** Parses `type = enum color {RED, GREEN = 5, BLUE}`. */
function parseEnum(text: string, size: number): PrintedEnum | null {
  const body = /^type = enum [\w$]+ (?::[^{]*)?\{(.*)\}$/.exec(text)?.[1];
  if (body === undefined) return null;
  const values: Record<string, number | string> = {};
  let next = 0n;
  let signed = false;
  for (const part of body.split(', ')) {
    const enumerator = /^([\w$]+)(?: = (-?\d+))?$/.exec(part);
    if (!enumerator) throw new PtypeError(`gdb printed "${part}"`);
    const value = enumerator[2] === undefined ? next : BigInt(enumerator[2]);
    signed ||= value < 0n;
    const number = Number(value);
    values[enumerator[1]!] = Number.isSafeInteger(number) ? number : value.toString();
    next = value + 1n;
  }
  return { size, values, signed };
}
