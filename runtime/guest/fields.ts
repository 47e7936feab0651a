import type { Field } from '../layout/field.ts';
import type { MemberKind } from '../layout/types.ts';
import type { LayoutView } from '../layout/view.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import type { ListLayout } from './shape.ts';

/** Where a member is and what it is: a resolved `Field` of a layout, or one moved to the structure around it. */
export interface Place {
  /** Bytes from the start of the structure. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** The C type as gdb spells it. */
  readonly type: string;
  readonly kind?: MemberKind | undefined;
  /** Structure that it embeds. */
  readonly struct?: string | undefined;
  /** Arrays: number of elements, and bytes from one to the next. */
  readonly length?: number | undefined;
  readonly stride?: number | undefined;
  readonly signed?: boolean | undefined;
  /** Bit fields: its bits, and the word that holds it. */
  readonly bitSize?: number | undefined;
  readonly bits?: { readonly offset: number; readonly shift: number } | undefined;
}

/** A member by path; undefined when this kernel has none: how callers ask what a kernel has. */
export function field(layout: LayoutView, struct: string, path: string): Field | undefined {
  return layout.struct(struct)?.member(path);
}

/** A member that every kernel we handle has. @throws DomschedError `layout-absent-member` */
export function requiredField(layout: LayoutView, struct: string, path: string): Field {
  return layout.requireStruct(struct).field(path);
}

/** The first of several spellings that a kernel has. */
export function anyField(layout: LayoutView, struct: string, ...paths: readonly string[]): Field | undefined {
  for (const path of paths) {
    const found = field(layout, struct, path);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** How lists are linked. @throws DomschedError `layout-absent-member` */
export function listLayout(layout: LayoutView): ListLayout {
  const offset = (path: string) => requiredField(layout, 'list_head', path).offset;
  return { next: offset('next'), prev: offset('prev'), size: layout.requireStruct('list_head').size };
}

/**
 * Reads one member of the structure at `base`, by itself and as wide as it is.
 * @throws DomschedError `translation-fault`; `layout-absent-member` for what is no scalar
 */
export function readMember(space: AddressSpace, base: GuestVirtual, member: Field): bigint {
  const { offset, size } = member.word;
  const bytes = space.readBytes(advance(base, offset), size);
  return member.bigint(new DataView(bytes.buffer, bytes.byteOffset, size), -offset);
}

/** As {@link readMember}, for pointers. */
export function readPointer(space: AddressSpace, base: GuestVirtual, member: Field): GuestVirtual {
  return readMember(space, base, member) as GuestVirtual;
}
