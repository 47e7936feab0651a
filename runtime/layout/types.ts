/**
 * The shape of a kernel's layout: of the modules that code generation writes, which are data and import no code, and of
 * what `moduleOf` makes of a layout at run time. The compiler holds every kernel's module against these types where the
 * registry is read.
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
  /** Of the field's least significant bit in the little-endian word. */
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
  /** Arrays: element counts, outermost first. */
  readonly dims?: readonly number[];
  readonly element?: { readonly kind: MemberKind; readonly size: number };
  /** The structure that this embeds. */
  readonly struct?: string;
  /** The structure that this points to. */
  readonly target?: string;
  readonly enum?: string;
  /** Index in `$anonymous` of the innermost anonymous struct or union around the member. */
  readonly in?: number;
  /** Members of a member whose own type has no name. */
  readonly members?: Readonly<Record<string, MemberLayout>>;
}

/** An anonymous struct or union whose members are listed as the structure's own. */
export interface AnonymousLayout {
  readonly offset: number;
  readonly size: number;
  readonly kind: 'struct' | 'union';
  readonly type: string;
  readonly in?: number;
}

/** A structure: facts under `$` names, which no C identifier is, and its members under their own. */
export interface StructLayout {
  readonly $name: string;
  readonly $sourceName: string;
  readonly $kind: 'struct' | 'union';
  readonly $size: number;
  readonly $anonymous?: readonly AnonymousLayout[];
}

/** Where a layout comes from, and which kernel build it is of. */
export interface KernelFacts {
  readonly release: string;
  readonly banner: string | null;
  readonly buildId: string | null;
  readonly arch: string;
  readonly schedulers: readonly string[];
  readonly source: {
    readonly file: string;
    /** Of the whole file where it has no build-id; null where it has one. */
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

/** The `layout` of one kernel: its structures under their names beside facts under `$` names. */
export interface KernelModule {
  readonly $kernel: KernelFacts;
  readonly $symbols: Readonly<Record<string, bigint>>;
  readonly $percpu: readonly string[];
  readonly $constants: Readonly<Record<string, number>>;
  readonly $enums: Readonly<Record<string, EnumLayout>>;
}

/** The module of a kernel that is known only at run time: which structures it has shows when one looks. */
export type AnyLayout = KernelModule & Readonly<Record<string, unknown>>;
export type AnyStructure = StructLayout;
export type AnyMember = MemberLayout;

/** Members of a structure's type without its `$` facts. */
export type MembersOf<S> = { readonly [K in keyof S as K extends `$${string}` ? never : K]: S[K] };

/** Structures of a kernel's type without its `$` facts. */
export type StructsOf<L> = MembersOf<L>;
