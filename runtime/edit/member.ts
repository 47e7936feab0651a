import { DomschedError } from '../error.ts';
import { type Asked, type FoundMembers, type Member, membersOf } from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import type { StructName } from '../members/members.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { Draft } from './draft.ts';
import type { MemoryView, WordSize } from './memory-view.ts';

/** Position and width of a word in its structure, from the guest's layout. */
export interface Word {
  readonly offset: number;
  readonly size: WordSize;
  readonly signed?: boolean | undefined;
}

type WordOrOffset<M> = M extends Member<'number' | 'pointer'> ? Word : M extends Member ? number : M;

/** Members as edits use them: numbers and pointers as words, anything larger as an offset. */
export type Words<F> = { readonly [K in keyof F]: WordOrOffset<F[K]> };

/**
 * Like {@link membersOf}, for edits.
 * @throws DomschedError `layout-absent-member` also for a number or pointer that does not fit a word
 */
export function wordsOf<S extends StructName, const A extends Asked<S>>(
  layout: LayoutView,
  struct: S,
  asked: readonly A[],
  base = 0,
): Words<FoundMembers<S, A>> {
  const found: Readonly<Record<string, Member | undefined>> = membersOf(layout, struct, asked, base);
  const words = Object.entries(found).map(([name, member]) => {
    const isWord = member?.role === 'number' || member?.role === 'pointer';
    return [name, isWord ? wordOf(member, `${struct}.${name}`) : member?.offset];
  });
  return Object.fromEntries(words) as Words<FoundMembers<S, A>>;
}

function wordOf({ offset, size, signed, type, bitSize }: Member, name: string): Word {
  const isWord = size === 1 || size === 2 || size === 4 || size === 8;
  // Neighbours share the word of a bit field; code that needs such a field takes its bits (`Member.bits`).
  if (isWord && bitSize === undefined) return { offset, size: size as WordSize, signed };
  const form = bitSize === undefined ? `${size} bytes` : `${bitSize} bits`;
  throw new DomschedError('layout-absent-member', `${name} (${type}, ${form}) is no word`, { member: name });
}

/** Reads a member of the structure at `base`, with the kernel's width and sign. */
export function get(memory: MemoryView, base: GuestVirtual, { offset, size, signed }: Word): bigint {
  const address = advance(base, offset);
  return signed ? memory.signed(address, size) : memory.word(address, size);
}

/** Reads a member that is a pointer. */
export function follow(memory: MemoryView, base: GuestVirtual, word: Word): GuestVirtual {
  return memory.pointer(advance(base, word.offset));
}

/** Plans a new value of a member of the structure at `base`. */
export function put(draft: Draft, base: GuestVirtual, word: Word, value: bigint, what: string): void {
  draft.set(advance(base, word.offset), word.size, value, what);
}
