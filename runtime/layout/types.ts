/**
 * The types of a kernel's layout: of generated modules, which are data and import no code, and of what `moduleOf` makes
 * at run time. The compiler checks every kernel's module against these types where the registry is read.
 */
import type { MemberKind } from '../../extractor/contract.ts';

export type { MemberKind };

export type Scalar = number | bigint | boolean;

/** The word through which a bit field is read and written. */
export interface BitWord {
  /** Bytes from the start of the structure. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** Position of the field's least significant bit in the little-endian word. */
  readonly shift: number;
}

/** A member of a structure. Offsets count bytes from the start of the structure, at any nesting. */
export interface MemberLayout {
  readonly offset: number;
  readonly size: number;
  /** The C type. */
  readonly type: string;
  readonly kind: MemberKind;
  readonly signed?: boolean;
  readonly bitOffset?: number;
  readonly bitSize?: number;
  readonly bits?: BitWord;
  /** For arrays: element counts, outermost first. */
  readonly dims?: readonly number[];
  readonly element?: { readonly kind: MemberKind; readonly size: number };
  /** Name of the structure that this embeds. */
  readonly struct?: string;
  /** Name of the structure that this points to. */
  readonly target?: string;
  readonly enum?: string;
  /** Index in `$anonymous` of the innermost anonymous struct or union around the member. */
  readonly in?: number;
  /** Members of a member whose type has no name. */
  readonly members?: Readonly<Record<string, MemberLayout>>;
}

/** An anonymous struct or union; its members are listed as the structure's own. */
export interface AnonymousLayout {
  readonly offset: number;
  readonly size: number;
  readonly kind: 'struct' | 'union';
  readonly type: string;
  readonly in?: number;
}

/** A structure: facts under `$` names, which no C identifier uses, and members under their own names. */
export interface StructLayout {
  readonly $name: string;
  readonly $sourceName: string;
  readonly $kind: 'struct' | 'union';
  readonly $size: number;
  readonly $anonymous?: readonly AnonymousLayout[];
}

/** The sources of a layout, and the kernel build that it describes. */
export interface KernelFacts {
  readonly release: string;
  readonly banner: string | null;
  readonly buildId: string | null;
  readonly arch: string;
  readonly schedulers: readonly string[];
  readonly source: {
    readonly file: string;
    /** Hash of the whole file if it has no build-id; otherwise null. */
    readonly sha256: string | null;
    readonly engine: string;
    readonly dwarfVersion: number | null;
  };
  readonly producer: { readonly name: string; readonly version: string };
}

export interface EnumLayout {
  readonly size: number;
  readonly values: Readonly<Record<string, number | bigint>>;
}

/** The `layout` of one kernel: structures under their names, and facts under `$` names. */
export interface KernelModule {
  readonly $kernel: KernelFacts;
  readonly $symbols: Readonly<Record<string, bigint>>;
  readonly $percpu: readonly string[];
  readonly $constants: Readonly<Record<string, number>>;
  readonly $enums: Readonly<Record<string, EnumLayout>>;
}

/** The module of a kernel that is known only at run time, so its structures are not known to the compiler. */
export type AnyLayout = KernelModule & Readonly<Record<string, unknown>>;
export type AnyStructure = StructLayout;
export type AnyMember = MemberLayout;

/** Members of a structure's type without its `$` facts. */
export type MembersOf<S> = { readonly [K in keyof S as K extends `$${string}` ? never : K]: S[K] };

/** Structures of a kernel's type without its `$` facts. */
export type StructsOf<L> = MembersOf<L>;
