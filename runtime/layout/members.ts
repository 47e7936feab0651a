import { DomschedError } from '../error.ts';
import type { MemberDeclaration, Role } from '../members/declare.ts';
import { MEMBERS, type MemberName, type RoleOf, type StructName } from '../members/members.ts';
import type { Field } from './field.ts';
import type { LayoutView } from './view.ts';

/** A declared member as one kernel has it, with width and sign from the layout. */
export interface Member<R extends Role = Role> {
  readonly role: R;
  /** Bytes from the start of the structure for which it was requested. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** The C type. */
  readonly type: string;
  readonly signed?: boolean | undefined;
  /** For arrays: number of elements, and bytes from one to the next. */
  readonly length?: number | undefined;
  readonly stride?: number | undefined;
  /** For bit fields: its bits, and the word that contains it. */
  readonly bitSize?: number | undefined;
  readonly bits?: Field['bits'];
}

/** A member's name; a trailing `?` marks one that some supported kernels lack. */
export type Asked<S extends StructName> = MemberName<S> | `${MemberName<S>}?`;
type Bare<A> = A extends `${infer M}?` ? M : A;

/** Result of {@link membersOf}. */
export type FoundMembers<S extends StructName, A extends Asked<S>> = {
  readonly [K in A as Bare<K> & string]:
    | Member<RoleOf<S, Bare<K> & MemberName<S>>>
    | (K extends `${string}?` ? undefined : never);
};

/**
 * Finds declared members of a structure.
 * @param base offset of the structure in the one around it, if offsets should count from the start of that one
 * @throws DomschedError `layout-absent-member` for a member that this kernel has under none of its names
 */
export function membersOf<S extends StructName, const A extends Asked<S>>(
  layout: LayoutView,
  struct: S,
  asked: readonly A[],
  base = 0,
): FoundMembers<S, A> {
  const found = asked.map((each) => {
    const isOptional = each.endsWith('?');
    const name = (isOptional ? each.slice(0, -1) : each) as MemberName<S>;
    const field = isOptional ? optionalField(layout, struct, name) : requiredField(layout, struct, name);
    return [name, field && memberAt(field, declaration(struct, name).role, base)];
  });
  return Object.fromEntries(found) as FoundMembers<S, A>;
}

/** Converts a field to a member of the structure that begins `base` bytes before the field's own. */
export function memberAt<R extends Role>(field: Field, role: R, base = 0): Member<R> {
  const { offset, size, type, signed, length, stride, bitSize, bits } = field;
  const moved = bits && { ...bits, offset: bits.offset + base };
  return { role, offset: offset + base, size, type, signed, length, stride, bitSize, bits: moved };
}

/** Undefined if this kernel has no such member. */
export function optionalField<S extends StructName>(
  layout: LayoutView,
  struct: S,
  name: MemberName<S>,
): Field | undefined {
  for (const path of pathsOf(struct, name)) {
    const found = layout.struct(struct)?.member(path);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** @throws DomschedError `layout-absent-member`, with the member's first name */
export function requiredField<S extends StructName>(
  layout: LayoutView,
  struct: S,
  name: MemberName<S>,
): Field {
  return optionalField(layout, struct, name) ?? layout.field(struct, pathsOf(struct, name)[0]!);
}

export function hasMember<S extends StructName>(
  layout: Pick<LayoutView, 'has'>,
  struct: S,
  name: MemberName<S>,
): boolean {
  return pathsOf(struct, name).some((path) => layout.has(struct, path));
}

/** Whether a kernel's run queues are arrays of lists (until "sched: remove the 'old' scheduler", 2.6.23). */
export function hasO1Queues(layout: Pick<LayoutView, 'has'>): boolean {
  return hasMember(layout, 'rq', 'active') && hasMember(layout, 'prio_array', 'queue');
}

/** The first of these members that a kernel lacks, such as `cfs_rq.nr_queued or cfs_rq.nr_running`. */
export function lackOf(layout: LayoutView, asked: MembersByStruct): string | undefined {
  for (const [struct, names] of Object.entries(asked)) {
    const lacks = names.find((name) => !hasMember(layout, struct as 'rq', name as 'curr'));
    if (lacks === undefined) continue;
    const paths = pathsOf(struct as 'rq', lacks as 'curr');
    return paths.map((path) => `${struct}.${path}`).join(' or ');
  }
  return undefined;
}

export type MembersByStruct = { readonly [S in StructName]?: readonly MemberName<S>[] };

/** Offsets of the two pointers in a `list_head`, and its size. */
export interface ListLinks {
  readonly next: number;
  readonly prev: number;
  readonly size: number;
}

/** @throws DomschedError `layout-absent-member` */
export function listLinks(layout: LayoutView): ListLinks {
  const { next, prev } = membersOf(layout, 'list_head', ['next', 'prev']);
  return { next: next.offset, prev: prev.offset, size: sizeOf(layout, 'list_head') };
}

/** Number of elements of an array of list heads. @throws DomschedError `layout-absent-member` if it is no such array */
export function listCount({ stride, length, type }: Member, links: ListLinks): number {
  if (stride === links.size && length !== undefined && length > 0) return length;
  throw new DomschedError(
    'layout-absent-member',
    `a queue of ready tasks is a ${type}, not an array of list heads; extract this kernel again`,
    { type },
  );
}

/** Size of a structure in bytes. @throws DomschedError `layout-absent-member` */
export function sizeOf(layout: LayoutView, struct: StructName): number {
  return layout.requireStruct(struct).size;
}

/** Names that kernels use for a member. */
export function pathsOf<S extends StructName>(struct: S, name: MemberName<S>): readonly string[] {
  return declaration(struct, name).paths;
}

function declaration<S extends StructName>(struct: S, name: MemberName<S>): MemberDeclaration {
  return (MEMBERS[struct] as Readonly<Record<string, MemberDeclaration>>)[name]!;
}
