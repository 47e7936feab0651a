import type { KernelLayout, Structure, StructureMember } from '../../extractor/contract.ts';
import { schedulersOf } from './schedulers.ts';
import type {
  AnonymousLayout,
  AnyLayout,
  BitWord,
  EnumLayout,
  KernelFacts,
  MemberLayout,
  StructLayout,
} from './types.ts';

/** A layout that names its kernel. */
export type NamedLayout = KernelLayout & { kernel: { release: string; banner: string } };

/**
 * Converts a kernel's layout to the form that the runtime reads. The code generator prints exactly this, so a layout
 * from a module and one made at run time are the same.
 *
 * @param layout all members must lie inside their structures: see {@link misfit}
 */
export function moduleOf(layout: NamedLayout): AnyLayout {
  const module = {
    $kernel: factsOf(layout),
    $symbols: mapValues(sorted(layout.symbols), BigInt),
    $percpu: [...new Set(layout.percpu)].sort(byCodeUnit),
    $constants: sorted(layout.constants),
    $enums: mapValues(sorted(layout.enums), enumerationOf),
  };
  for (const [name, found] of Object.entries(sorted(layout.structs))) {
    onFirstRead(module, ownKey(name), () => structureOf(found));
  }
  return module as unknown as AnyLayout;
}

/** Adds a property that is made when somebody reads it: of a kernel's structures most are never asked for. */
function onFirstRead(target: object, key: string, make: () => unknown): void {
  const kept = (value: unknown) => {
    // Defined, because assigning to `__proto__` would not set a property.
    Object.defineProperty(target, key, { value, enumerable: true });
    return value;
  };
  Object.defineProperty(target, key, { enumerable: true, configurable: true, get: () => kept(make()) });
}

/** The kernel and the sources of a layout. */
export function factsOf({ kernel, source, producer, structs }: NamedLayout): KernelFacts {
  return {
    release: kernel.release,
    banner: kernel.banner,
    buildId: kernel.buildId,
    arch: kernel.arch,
    schedulers: schedulersOf(structs),
    source: {
      file: source.file,
      sha256: source.sha256,
      engine: source.engine,
      dwarfVersion: source.dwarfVersion,
    },
    producer: { name: producer.name, version: producer.version },
  };
}

function enumerationOf({ size, values }: KernelLayout['enums'][string]): EnumLayout {
  return { size, values: mapValues(values, (value) => (typeof value === 'string' ? BigInt(value) : value)) };
}

/** The members of a structure under their names in C; members of anonymous structs and unions count as its own. */
function structureOf(structure: Structure): StructLayout {
  const anonymous: AnonymousLayout[] = [];
  const members: [string, MemberLayout][] = [];
  const visit = (list: readonly StructureMember[], inside: number | undefined): void => {
    for (const member of list) {
      if (member.name !== null) {
        members.push([ownKey(member.name), memberOf(member, structure.size, inside)]);
      } else if (member.members && member.members.length > 0) {
        const { offset, size, type } = member;
        const kind = member.kind === 'struct' ? 'struct' : 'union';
        const index = anonymous.push({ offset, size, kind, type, ...given({ in: inside }) }) - 1;
        visit(member.members, index);
      }
    }
  };
  visit(structure.members, undefined);
  return {
    $name: structure.name,
    $sourceName: structure.sourceName,
    $kind: structure.kind,
    $size: structure.size,
    ...(anonymous.length > 0 ? { $anonymous: anonymous } : {}),
    ...Object.fromEntries(members),
  };
}

function memberOf(member: StructureMember, structureSize: number, inside: number | undefined): MemberLayout {
  const { offset, size, type, kind, element } = member;
  return {
    offset,
    size,
    type,
    kind,
    ...given({
      signed: member.signed,
      bitOffset: member.bitOffset,
      bitSize: member.bitSize,
      bits: bitWord(member, structureSize),
      dims: member.dims,
      element: element && { kind: element.kind, size: element.size },
      struct: member.struct,
      target: member.target,
      enum: member.enum,
      in: inside,
      members: member.members && member.members.length > 0 ? named(member.members, structureSize) : undefined,
    }),
  };
}

/** Members of a member whose type has no name (`outer.inner`), with anonymous ones flattened. */
function named(members: readonly StructureMember[], structureSize: number): Record<string, MemberLayout> {
  const flat = (list: readonly StructureMember[]): [string, MemberLayout][] =>
    list.flatMap((member) =>
      member.name === null
        ? flat(member.members ?? [])
        : [[ownKey(member.name), memberOf(member, structureSize, undefined)]],
    );
  return Object.fromEntries(flat(members));
}

/**
 * The smallest word inside the structure that contains all bits of a field, so that a write touches the fewest
 * neighbours. Undefined if no word of at most 8 bytes does.
 */
function bitWord(member: StructureMember, structureSize: number): BitWord | undefined {
  if (member.bitSize === undefined) return undefined;
  const firstBit = member.offset * 8 + (member.bitOffset ?? 0);
  for (const size of [1, 2, 4, 8] as const) {
    const offset = Math.min(firstBit >> 3, structureSize - size);
    const shift = firstBit - offset * 8;
    if (offset >= 0 && shift + member.bitSize <= size * 8) return { offset, size, shift };
  }
  return undefined;
}

const MAX_NESTING = 64;

/** Something impossible in a C layout: its path and what is wrong. */
export interface Misfit {
  readonly path: string;
  readonly problem: string;
}

/**
 * Finds the first defect of a layout: a member outside its structure or present twice, a name that is no valid key, a
 * per-CPU variable that is no symbol. Null means that {@link moduleOf} may be used.
 */
export function misfit(layout: KernelLayout): Misfit | null {
  for (const [key, found] of Object.entries(layout.structs)) {
    if (found.name !== key) return { path: `structs.${key}.name`, problem: `is ${found.name}, not its key` };
    const wrong = structureMisfit(found);
    if (wrong) return wrong;
  }
  const stray = layout.percpu.find((name) => !Object.hasOwn(layout.symbols, name));
  return stray === undefined
    ? null
    : { path: 'percpu', problem: `${JSON.stringify(stray)} is not in symbols` };
}

function structureMisfit(structure: Structure): Misfit | null {
  const visit = (
    members: readonly StructureMember[],
    scope: Set<string>,
    outer: readonly string[],
  ): Misfit | null => {
    // Every guest's layout is looked through before it is used: only a member that is wrong gets a path.
    const at = (found: StructureMember) => [structure.name, ...outer, found.name ?? ANONYMOUS].join('.');
    if (outer.length > MAX_NESTING) {
      return {
        path: [structure.name, ...outer].join('.'),
        problem: `nests deeper than ${MAX_NESTING} levels`,
      };
    }
    for (const found of members) {
      // The storage unit of a packed bit field may reach past the end; its bits may not.
      const end =
        found.bitSize === undefined
          ? found.offset + found.size
          : found.offset + Math.ceil(((found.bitOffset ?? 0) + found.bitSize) / 8);
      if (!Number.isSafeInteger(end) || found.offset < 0 || found.size < 0) {
        return { path: at(found), problem: `has no place (offset ${found.offset}, size ${found.size})` };
      }
      if (end > structure.size) {
        const problem = `ends at byte ${end} of a ${structure.kind} of ${structure.size} bytes`;
        return { path: at(found), problem };
      }
      if (found.name !== null) {
        if (scope.has(found.name)) return { path: at(found), problem: 'is there twice' };
        scope.add(found.name);
      }
      if (found.members === undefined || found.members.length === 0) continue;
      const inside = [...outer, found.name ?? ANONYMOUS];
      const wrong = visit(found.members, found.name === null ? scope : new Set(), inside);
      if (wrong) return wrong;
    }
    return null;
  };
  return visit(structure.members, new Set(), []);
}

/** Stands in paths for a member without a name. */
const ANONYMOUS = '(anonymous)';

/**
 * The key of a structure or member. Names that start with `$` are domsched's own, so a `$` name from GCC gets a leading
 * dot.
 */
export function ownKey(name: string): string {
  return /^\.*\$/.test(name) ? `.${name}` : name;
}

/** The same order in every locale. */
export function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Keeps only the properties that have a value. */
function given<T extends object>(record: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  // Called thousands of times per kernel, so avoid a list of entries.
  const found: Partial<T> = {};
  for (const key in record) if (record[key] !== undefined) found[key] = record[key];
  return found as never;
}

function mapValues<T, U>(record: Readonly<Record<string, T>>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));
}

function sorted<T>(record: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => byCodeUnit(a, b)));
}
