import {
  canonicalName,
  type Enumeration,
  type KernelLayout,
  type MemberKind,
  type Structure,
  type StructureMember,
} from './contract.ts';
import type { KernelSymbol } from './elf/kernel-file.ts';

/**
 * Volatility 3's Intermediate Symbol Format, version 6.2.0: structures with typed fields, enumerations, symbols. The
 * schemas in volatility3's `schemas` folder describe it.
 */
export interface Isf {
  metadata: {
    format: '6.2.0';
    producer: { name: string; version: string };
    linux: { symbols: IsfSource[]; types: IsfSource[] };
  };
  base_types: Record<string, IsfBaseType>;
  user_types: Record<string, IsfUserType>;
  enums: Record<string, { size: number; base: string; constants: Record<string, unknown> }>;
  symbols: Record<string, { address: unknown; type?: IsfType; constant_data?: string }>;
}

interface IsfSource {
  kind: 'dwarf' | 'symtab';
  name: string;
  hash_type: 'sha256';
  hash_value: string;
}

interface IsfBaseType {
  size: number;
  signed: boolean;
  kind: 'void' | 'int' | 'float' | 'char' | 'bool';
  endian: 'little';
}

interface IsfUserType {
  kind: 'struct' | 'union';
  size: number;
  fields: Record<string, { type: IsfType; offset: number; anonymous?: true }>;
}

type IsfType =
  | { kind: 'base' | 'struct' | 'union' | 'enum'; name: string }
  | { kind: 'pointer'; subtype: IsfType }
  | { kind: 'array'; count: number; subtype: IsfType }
  | { kind: 'bitfield'; bit_position: number; bit_length: number; type: IsfType }
  | { kind: 'function' };

const int = (size: number, signed: boolean): IsfBaseType => ({ size, signed, kind: 'int', endian: 'little' });

const BASE_TYPES: Readonly<Record<string, IsfBaseType>> = {
  void: { size: 0, signed: false, kind: 'void', endian: 'little' },
  pointer: int(8, false),
  char: { size: 1, signed: true, kind: 'char', endian: 'little' },
  'signed char': { size: 1, signed: true, kind: 'char', endian: 'little' },
  'unsigned char': { size: 1, signed: false, kind: 'char', endian: 'little' },
  _Bool: { size: 1, signed: false, kind: 'bool', endian: 'little' },
  short: int(2, true),
  'unsigned short': int(2, false),
  int: int(4, true),
  'unsigned int': int(4, false),
  long: int(8, true),
  'unsigned long': int(8, false),
  'long long': int(8, true),
  'unsigned long long': int(8, false),
  // gcc's spelling, which plugins written for dwarf2json's tables expect.
  'long int': int(8, true),
  'long unsigned int': int(8, false),
  'short int': int(2, true),
  'short unsigned int': int(2, false),
  'long long int': int(8, true),
  'long long unsigned int': int(8, false),
  __int128: int(16, true),
  '__int128 unsigned': int(16, false),
  float: { size: 4, signed: true, kind: 'float', endian: 'little' },
  double: { size: 8, signed: true, kind: 'float', endian: 'little' },
};

const VOID: IsfType = { kind: 'base', name: 'void' };

/** Types of symbols from which plugins make objects; debug information with types only lacks them. */
const SYMBOL_TYPES: Readonly<Record<string, IsfType>> = {
  init_task: { kind: 'struct', name: 'task_struct' },
  init_mm: { kind: 'struct', name: 'mm_struct' },
  init_uts_ns: { kind: 'struct', name: 'uts_namespace' },
  runqueues: { kind: 'struct', name: 'rq' },
  root_task_group: { kind: 'struct', name: 'task_group' },
};

/**
 * Converts a layout and all symbols of its kernel to ISF.
 *
 * @param sha256 of the file that both come from: ISF wants it for every file, even with a build-id
 */
export function toIsf(layout: KernelLayout, symbols: Iterable<KernelSymbol>, sha256: string): Isf {
  const userTypes = new Map<string, IsfUserType>();
  for (const structure of Object.values(layout.structs))
    new StructureConverter(structure, layout, userTypes).convert();
  const source = { name: layout.source.file, hash_type: 'sha256', hash_value: sha256 } as const;
  return {
    metadata: {
      format: '6.2.0',
      producer: layout.producer,
      linux: {
        symbols: [{ kind: 'symtab', ...source }],
        types: layout.source.engine === 'btf' ? [] : [{ kind: 'dwarf', ...source }],
      },
    },
    base_types: { ...BASE_TYPES },
    user_types: Object.fromEntries(userTypes),
    enums: Object.fromEntries(Object.entries(layout.enums).map(([name, it]) => [name, convertEnum(it)])),
    symbols: Object.fromEntries(convertSymbols(layout, symbols, userTypes)),
  };
}

/** ISF as text: its addresses are numbers beyond the range of a JavaScript number. */
export function isfText(isf: Isf): string {
  return `${JSON.stringify(isf)}\n`;
}

function convertEnum(enumeration: Enumeration): Isf['enums'][string] {
  const entries = Object.entries(enumeration.values);
  const signed = entries.some(([, value]) => String(value).startsWith('-'));
  return {
    size: enumeration.size,
    base: integerName(enumeration.size, signed),
    constants: Object.fromEntries(entries.map(([name, value]) => [name, integer(String(value))])),
  };
}

function* convertSymbols(
  layout: KernelLayout,
  symbols: Iterable<KernelSymbol>,
  userTypes: ReadonlyMap<string, IsfUserType>,
): Generator<[string, Isf['symbols'][string]]> {
  for (const [name, address] of Object.entries(layout.symbols)) {
    yield [name, convertSymbol(name, BigInt(address), layout, userTypes)];
  }
  const seen = new Set(Object.keys(layout.symbols));
  for (const { name, address } of symbols) {
    // Local names repeat; take the first, like dwarf2json's tables.
    if (seen.has(name)) continue;
    seen.add(name);
    yield [name, convertSymbol(name, address, layout, userTypes)];
  }
}

function convertSymbol(
  name: string,
  address: bigint,
  layout: KernelLayout,
  userTypes: ReadonlyMap<string, IsfUserType>,
): Isf['symbols'][string] {
  const converted: Isf['symbols'][string] = { address: integer(address.toString()) };
  const type = Object.hasOwn(SYMBOL_TYPES, name) ? SYMBOL_TYPES[name] : undefined;
  if (type && 'name' in type && userTypes.has(type.name)) converted.type = type;
  if (name === 'linux_banner' && layout.kernel.banner !== null) {
    const bytes = Buffer.from(`${layout.kernel.banner}\n\0`, 'utf8');
    converted.type = { kind: 'array', count: bytes.length, subtype: { kind: 'base', name: 'char' } };
    converted.constant_data = bytes.toString('base64');
  }
  return converted;
}

class StructureConverter {
  readonly #structure: Structure;
  readonly #layout: KernelLayout;
  readonly #userTypes: Map<string, IsfUserType>;

  constructor(structure: Structure, layout: KernelLayout, userTypes: Map<string, IsfUserType>) {
    this.#structure = structure;
    this.#layout = layout;
    this.#userTypes = userTypes;
  }

  convert(): void {
    const { name, kind, size, members } = this.#structure;
    this.#userTypes.set(name, { kind, size, fields: this.#fields(members, 0, name) });
  }

  /** @param base bytes from the start of the named structure to these members' own structure */
  #fields(members: readonly StructureMember[], base: number, path: string): IsfUserType['fields'] {
    const fields = new Map<string, IsfUserType['fields'][string]>();
    let unnamed = 0;
    for (const member of members) {
      const name = member.name ?? `unnamed_field_${unnamed++}`;
      const type = this.#type(member, `${path}_${name}`);
      const field = { type, offset: member.offset - base };
      if (type.kind === 'bitfield') {
        // Volatility reads the whole storage unit at the field's offset.
        const unit = member.size * Math.floor(field.offset / member.size);
        const position = (field.offset - unit) * 8 + member.bitOffset!;
        if (position + member.bitSize! <= member.size * 8) {
          field.offset = unit;
          type.bit_position = position;
        }
      }
      fields.set(name, member.name === null ? { ...field, anonymous: true } : field);
    }
    return Object.fromEntries(fields);
  }

  #type(member: StructureMember, path: string): IsfType {
    const scalar = this.#element(member, path);
    if (member.bitSize !== undefined) {
      return { kind: 'bitfield', bit_position: member.bitOffset!, bit_length: member.bitSize, type: scalar };
    }
    return (member.dims ?? []).reduceRight<IsfType>(
      (subtype, count) => ({ kind: 'array', count, subtype }),
      scalar,
    );
  }

  #element(member: StructureMember, path: string): IsfType {
    const { kind, size } = member.kind === 'array' ? member.element! : member;
    if (member.members) {
      const name = `unnamed_${path}`;
      const tag = kind === 'union' ? 'union' : 'struct';
      this.#userTypes.set(name, {
        kind: tag,
        size,
        fields: this.#fields(member.members, member.offset, path),
      });
      return { kind: tag, name };
    }
    switch (kind) {
      case 'struct':
      case 'union':
        return member.struct === undefined ? VOID : { kind, name: member.struct };
      case 'enum':
        if (member.enum !== undefined && Object.hasOwn(this.#layout.enums, member.enum)) {
          return { kind: 'enum', name: member.enum };
        }
        return { kind: 'base', name: integerName(size, member.signed ?? false) };
      case 'pointer':
        return this.#pointer(member);
      default:
        return scalarType(kind, size, member);
    }
  }

  /** A pointer's target, as far as its spelling tells; a typedef's name becomes void. */
  #pointer(member: StructureMember): IsfType {
    const type = member.type.replace(/ ?\[\d*\]/g, '').replace(/\b(?:const|volatile|restrict) ?/g, '');
    if (type.includes('(')) return { kind: 'pointer', subtype: { kind: 'function' } };
    const stars = (type.match(/\*/g) ?? []).length;
    let subtype: IsfType = VOID;
    const pointee = type.replace(/[* ]+$/, '');
    const target = member.target ?? canonicalName(/^(?:struct|union) (\w+)$/.exec(pointee)?.[1] ?? '');
    if (Object.hasOwn(this.#layout.structs, target)) {
      subtype = { kind: this.#layout.structs[target]!.kind, name: target };
    } else if (stars > 0 && Object.hasOwn(BASE_TYPES, pointee)) subtype = { kind: 'base', name: pointee };
    let result: IsfType = { kind: 'pointer', subtype };
    for (let level = 1; level < stars; level++) result = { kind: 'pointer', subtype: result };
    return result;
  }
}

function scalarType(kind: MemberKind, size: number, member: StructureMember): IsfType {
  // The declared name if it is one of C's own (`long long`), otherwise a type of its size.
  const declared = member.type.replace(/ ?\[\d*\]/g, '').replace(/\b(?:const|volatile|_Atomic) /g, '');
  if (Object.hasOwn(BASE_TYPES, declared) && BASE_TYPES[declared]!.size === size) {
    return { kind: 'base', name: declared };
  }
  if (kind === 'bool') return { kind: 'base', name: '_Bool' };
  if (kind === 'float')
    return size === 4 || size === 8 ? { kind: 'base', name: size === 4 ? 'float' : 'double' } : VOID;
  if (kind === 'int') return { kind: 'base', name: integerName(size, member.signed ?? false) };
  return VOID;
}

function integerName(size: number, signed: boolean): string {
  const prefix = signed ? '' : 'unsigned ';
  switch (size) {
    case 1:
      return signed ? 'signed char' : 'unsigned char';
    case 2:
      return `${prefix}short`;
    case 8:
      return `${prefix}long`;
    case 16:
      return signed ? '__int128' : '__int128 unsigned';
    default:
      return `${prefix}int`;
  }
}

/** A JSON number with all its digits (`JSON.rawJSON`, which TypeScript's library does not declare yet). */
function integer(digits: string): unknown {
  const number = Number(digits);
  if (Number.isSafeInteger(number)) return number;
  return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(digits);
}
