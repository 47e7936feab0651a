import type { LayoutView } from '../layout/view.ts';

/** Where a member is and what it is: a resolved `Field` of a layout, or one moved to the structure around it. */
export interface Place {
  /** Bytes from the start of the structure. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** The C type as gdb spells it. */
  readonly type: string;
  /** Structure that it embeds. */
  readonly struct?: string | undefined;
  /** Arrays: number of elements, and bytes from one to the next. */
  readonly length?: number | undefined;
  readonly stride?: number | undefined;
  /** Bit fields: the word that holds it. */
  readonly bits?:
    | { readonly offset: number; readonly shift: number; readonly mask: number | bigint }
    | undefined;
}

/** A member by path; undefined when this kernel has none: how callers ask what a kernel has. */
export function field(layout: LayoutView, struct: string, path: string): Place | undefined {
  return layout.struct(struct)?.member(path);
}

/** A member that every kernel we handle has. @throws DomschedError `layout-absent-member` */
export function requiredField(layout: LayoutView, struct: string, path: string): Place {
  return layout.requireStruct(struct).field(path);
}

/** The first of several spellings that a kernel has. */
export function anyField(layout: LayoutView, struct: string, ...paths: readonly string[]): Place | undefined {
  for (const path of paths) {
    const found = field(layout, struct, path);
    if (found !== undefined) return found;
  }
  return undefined;
}
