/**
 * The layout contract: the result of an extraction and the only input of code generation.
 *
 * `domsched extract FILE --json -` prints one {@link KernelLayout}. Numbers are bytes unless a name says bits;
 * addresses are link-time virtual addresses as `0x…` strings, since a 64-bit address does not fit a JSON number.
 */
export const LAYOUT_FORMAT = 'domsched-layout/1';

/** Kind of a member's content, after typedefs and qualifiers. */
export type MemberKind =
  | 'int'
  | 'bool'
  | 'float'
  | 'enum'
  | 'pointer'
  | 'struct'
  | 'union'
  | 'array'
  | 'opaque';

/** One member of a structure. `offset` is absolute: from the start of the *named* structure, at any nesting. */
export interface StructureMember {
  /** Null for an anonymous struct or union; its members are nested in `members`. */
  name: string | null;
  offset: number;
  /** Size in bytes of the declared type; 0 for a flexible array; for a bit field, of the storage unit. */
  size: number;
  /** The C type in gdb's spelling: `struct list_head`, `unsigned long [3]`, `void (*)(int)`, `union {...}`. */
  type: string;
  kind: MemberKind;
  /** For `int`, `enum` and arrays of them; absent if the debug information does not tell (old BTF). */
  signed?: boolean;
  /** For bit fields: least significant bit, counted from the least significant bit of the byte at `offset`. */
  bitOffset?: number;
  bitSize?: number;
  /** For arrays: element counts, outermost first; 0 for a flexible array. */
  dims?: number[];
  /** For arrays: kind and byte size of the innermost element. */
  element?: { kind: MemberKind; size: number };
  /** Canonical name of the embedded structure or union (also as array element). Absent for anonymous ones. */
  struct?: string;
  /** For pointers to structures: canonical name of the target. */
  target?: string;
  /** For kind `enum`: the enumeration's tag, if it has one. */
  enum?: string;
  /** Members of an anonymous struct or union type, whether or not the member itself has a name. */
  members?: StructureMember[];
}

/** One structure or union with all its members in declaration order. */
export interface Structure {
  /** Canonical name: used by domsched's code and the same for every kernel. */
  name: string;
  /** The kernel's own spelling, e.g. `runqueue` for the canonical `rq`. */
  sourceName: string;
  kind: 'struct' | 'union';
  size: number;
  members: StructureMember[];
}

export interface Enumeration {
  size: number;
  /** Enumerators in declaration order; a value outside the safe integers is a decimal string. */
  values: Record<string, number | string>;
}

export type EngineName = 'dwarf' | 'btf' | 'gdb';

/** Everything known about one kernel build. */
export interface KernelLayout {
  format: typeof LAYOUT_FORMAT;
  kernel: {
    /** `uname -r`, e.g. `6.1.0-56-cloud-amd64`; null if the file does not tell (an object, BTF alone). */
    release: string | null;
    /** `linux_banner` without its newline; null if the file has none. A guest cannot be recognized without it. */
    banner: string | null;
    /** GNU build-id in lower-case hex; null if the file has no note. */
    buildId: string | null;
    arch: 'x86_64';
  };
  source: {
    /** Base name of the input file. */
    file: string;
    /**
     * SHA-256 of the whole input file if it has no build-id, otherwise null. A build-id identifies a kernel better than
     * a hash of one of its files, and hashing a debug file takes longer than everything else.
     */
    sha256: string | null;
    engine: EngineName;
    /** Version of the units that were read; null for engines without DWARF. */
    dwarfVersion: number | null;
  };
  producer: { name: 'domsched'; version: string };
  /** The kernel's configuration, if known. */
  config?: Record<string, string>;
  /** By canonical name. */
  structs: Record<string, Structure>;
  enums: Record<string, Enumeration>;
  constants: Record<string, number>;
  /** Link-time addresses; per-CPU symbols are offsets into the per-CPU area if the kernel links that at 0. */
  symbols: Record<string, string>;
  /** Names among `symbols` of variables in the per-CPU area. */
  percpu: string[];
}

/** Structures whose spelling differs between kernels: kernel's spelling to canonical name. */
export const CANONICAL_NAMES: Readonly<Record<string, string>> = {
  // "sched: rename runqueue to rq", 2.6.18-rc1: struct runqueue became struct rq.
  runqueue: 'rq',
};

/** A range of a kernel's memory, at an address of the running kernel. */
export interface MemoryPart {
  readonly address: bigint;
  readonly bytes: Uint8Array;
}

/** A running kernel's image, or the part of it that was read: the source of a layout without a file. */
export interface KernelMemory {
  /** Name of the memory's owner, for messages and the layout's `source.file`. */
  readonly name: string;
  readonly parts: readonly MemoryPart[];
}

/**
 * The bytes of a kernel's memory that a layout depends on, by link-time address: a kernel with the same bytes has the
 * same layout.
 */
export interface MemoryEvidence {
  readonly ranges: readonly { readonly address: string; readonly length: number }[];
  /** Address of a 64-bit word to which a randomized kernel's slide was added. */
  readonly moved: string | null;
}

/** A layout from memory, and the evidence for it. */
export interface MemoryLayout {
  readonly layout: KernelLayout;
  readonly evidence: MemoryEvidence;
}

/** Canonical name of a kernel's structure. */
export function canonicalName(sourceName: string): string {
  return Object.hasOwn(CANONICAL_NAMES, sourceName) ? CANONICAL_NAMES[sourceName]! : sourceName;
}
