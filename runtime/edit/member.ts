import { DomschedError } from '../error.ts';
import type { LayoutView } from '../layout/view.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { Draft } from './draft.ts';
import type { MemoryView, WordSize } from './memory-view.ts';

/** Where a word is in its structure, from the guest's layout. */
export interface Field {
  readonly offset: number;
  readonly size: WordSize;
}

/** A member that is a word. @throws DomschedError `layout-absent-member` for none of that name, or one that is no word */
export function wordMember(layout: LayoutView, struct: string, path: string): Field {
  const { offset, size, type, bitSize } = layout.field(struct, path);
  // A bit field's word is its neighbours' too: those who need one take the bits (`Field.bits`).
  if (bitSize !== undefined) throw noWord(struct, path, `${type}, ${bitSize} bits`);
  if (size === 1 || size === 2 || size === 4 || size === 8) return { offset, size: size as WordSize };
  throw noWord(struct, path, `${type}, ${size} bytes`);
}

function noWord(struct: string, member: string, form: string): DomschedError {
  return new DomschedError('layout-absent-member', `${struct}.${member} (${form}) is no word`, {
    struct,
    member,
  });
}

/** As {@link wordMember}; null where the kernel has no such member. */
export function optionalWord(layout: LayoutView, struct: string, path: string): Field | null {
  return layout.has(struct, path) ? wordMember(layout, struct, path) : null;
}

/** Reads a member of the structure at `base`, unsigned. */
export function get(memory: MemoryView, base: GuestVirtual, field: Field): bigint {
  return memory.word(advance(base, field.offset), field.size);
}

/** Follows a member that is a pointer. */
export function follow(memory: MemoryView, base: GuestVirtual, field: Field): GuestVirtual {
  return memory.pointer(advance(base, field.offset));
}

/** Plans a new value of a member of the structure at `base`. */
export function put(draft: Draft, base: GuestVirtual, field: Field, value: bigint, what: string): void {
  draft.set(advance(base, field.offset), field.size, value, what);
}

/** As {@link get}, with the sign of a number of the member's width. */
export function getSigned(memory: MemoryView, base: GuestVirtual, field: Field): bigint {
  return memory.signed(advance(base, field.offset), field.size);
}
