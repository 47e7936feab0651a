/**
 * The layout contract: what an extraction produces and all that code generation reads.
 *
 * `domsched extract FILE --json -` prints one {@link KernelLayout}. Numbers are bytes unless a name says bits;
 * addresses are link-time virtual addresses as `0x…` strings, since a 64-bit address does not fit a JSON number.
 */
export const LAYOUT_FORMAT = 'domsched-layout/1';

/** What a member's bytes are, after typedefs and qualifiers are followed. */
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
  /** Null for an anonymous struct or union, whose members nest below it. */
  name: string | null;
  offset: number;
  /** Size in bytes of the declared type; 0 for a flexible array; the storage unit's for a bit field. */
  size: number;
  /** The C type as gdb spells it: `struct list_head`, `unsigned long [3]`, `void (*)(int)`, `union {...}`. */
  type: string;
  kind: MemberKind;
  /** For `int` and `enum`, and for arrays of them; absent where the debug information does not say (old BTF). */
  signed?: boolean;
  /** Bit fields: least significant bit, counted from the least significant bit of the byte at `offset`. */
  bitOffset?: number;
  bitSize?: number;
  /** Arrays: element counts, outermost first; 0 for a flexible array. */
  dims?: number[];
  /** Arrays: kind and byte size of the innermost element. */
  element?: { kind: MemberKind; size: number };
  /** Canonical name of the structure or union this embeds (also as array element). Absent for anonymous ones. */
  struct?: string;
  /** Pointers: canonical name of the structure pointed to, where it is one. */
  target?: string;
  /** Tag of the enumeration, for kind `enum` with a tag. */
  enum?: string;
  /** Members of an anonymous struct or union type, whether the member itself has a name or not. */
  members?: StructureMember[];
}

/** One structure or union with all its members in declaration order. */
export interface Structure {
  /** Canonical name: the one domsched's code uses, the same for every kernel. */
  name: string;
  /** The kernel's own spelling, e.g. `runqueue` where the canonical name is `rq`. */
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

/** Everything known of one kernel build. */
export interface KernelLayout {
  format: typeof LAYOUT_FORMAT;
  kernel: {
    /** `uname -r`, e.g. `6.1.0-56-cloud-amd64`; null where the file does not say (an object, BTF alone). */
    release: string | null;
    /** `linux_banner` without its newline; null where the file has none. No guest is recognized without it. */
    banner: string | null;
    /** GNU build-id in lower-case hex; null where the file has no note. */
    buildId: string | null;
    arch: 'x86_64';
  };
  source: {
    /** Base name of the input file. */
    file: string;
    /**
     * SHA-256 of the whole input file where it has no build-id; null where it has one. The build-id identifies a kernel
     * better than a hash of one of the files that it comes in, and hashing a debug file takes longer than all the rest.
     */
    sha256: string | null;
    engine: EngineName;
    /** Of the units read; null for engines without DWARF. */
    dwarfVersion: number | null;
  };
  producer: { name: 'domsched'; version: string };
  /** The kernel's configuration, where it is known. */
  config?: Record<string, string>;
  /** By canonical name. */
  structs: Record<string, Structure>;
  enums: Record<string, Enumeration>;
  constants: Record<string, number>;
  /** Link-time addresses; per-CPU symbols are offsets into the per-CPU area where the kernel links them at 0. */
  symbols: Record<string, string>;
  /** Names among `symbols` that live in the per-CPU area. */
  percpu: string[];
}

/** Structures that kernels spell differently: kernel's spelling to canonical name. */
export const CANONICAL_NAMES: Readonly<Record<string, string>> = {
  // "sched: rename runqueue to rq", 2.6.18-rc1: struct runqueue became struct rq.
  runqueue: 'rq',
};

/** Bytes of a kernel's memory, at an address of the running kernel. */
export interface MemoryPart {
  readonly address: bigint;
  readonly bytes: Uint8Array;
}

/** A running kernel's own image, or as much of it as was read: what a layout is made from without a file. */
export interface KernelMemory {
  /** Whose memory it is, for messages and as the layout's `source.file`. */
  readonly name: string;
  readonly parts: readonly MemoryPart[];
}

/** What was read of a kernel's memory, by link-time addresses: whoever has the same bytes there has the same layout. */
export interface MemoryEvidence {
  readonly ranges: readonly { readonly address: string; readonly length: number }[];
  /** A 64-bit word that the slide of a randomized kernel was added to. */
  readonly moved: string | null;
}

/** A layout out of memory, and what it comes from. */
export interface MemoryLayout {
  readonly layout: KernelLayout;
  readonly evidence: MemoryEvidence;
}

/** Canonical name of a kernel's structure. */
export function canonicalName(sourceName: string): string {
  return Object.hasOwn(CANONICAL_NAMES, sourceName) ? CANONICAL_NAMES[sourceName]! : sourceName;
}
