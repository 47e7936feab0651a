import { DomschedError } from '../error.ts';
import type { ListLinks, Member } from '../layout/members.ts';

/**
 * Position of a number in a record, and how to read it. Only a {@link Shape} makes one, from a member of the layout, so
 * nothing is ever read with another width or sign than the kernel's own.
 */
export interface Slot {
  /** Position in the record. */
  readonly at: number;
  /** Bytes. */
  readonly size: 1 | 2 | 4 | 8;
  readonly signed: boolean;
  /** For bit fields: the number of bits below it in its bytes, and the mask of its own. */
  readonly shift: number;
  readonly mask: number;
}

/** Position of a pointer in a record. */
export interface PointerSlot {
  readonly pointerAt: number;
}

/** A link of a list: the two pointers of a `list_head`. */
export interface LinkSlot {
  /** Offset of the node in the structure. */
  readonly offset: number;
  readonly next: PointerSlot;
  readonly prev: PointerSlot;
}

/** Position of something larger in a record, such as a name or an array. */
export interface BlockSlot {
  /** Offset in the structure. */
  readonly offset: number;
  readonly at: number;
  readonly size: number;
}

type SlotOf<M> =
  M extends Member<'number'>
    ? Slot
    : M extends Member<'pointer'>
      ? PointerSlot
      : M extends Member<'list'>
        ? LinkSlot
        : M extends Member<'block'>
          ? BlockSlot
          : M extends Member
            ? number
            : M;

/** Positions of members in a record, by their roles; for a part, its offset in the structure. */
export type Slots<F> = { readonly [K in keyof F]: SlotOf<F[K]> };

const ALL_BITS = 0xffff_ffff;
const POINTER_SIZE = 8;

/** Bytes of a structure that are read in one go. */
export interface ShapeSegment {
  /** Offset in the structure, a multiple of 8. */
  readonly offset: number;
  /** In bytes, a multiple of 8. */
  readonly length: number;
  /** Position of its copy in a record. */
  readonly at: number;
}

/** Copying fewer bytes than this between two members costs less than another read (measured: 400 to 1,000). */
const WORTH_A_READ = 768;

/**
 * Decides which parts of a structure a snapshot copies, and where each member is in the copy. A `task_struct` has some
 * 10,000 bytes, of which schedulers need a few hundred in a handful of places.
 */
export class Shape {
  readonly segments: readonly ShapeSegment[];
  /** Bytes of a record. */
  readonly size: number;

  /** @param members members to copy; those inside a part must be named themselves */
  constructor(members: readonly (Member | undefined)[]) {
    const ranges = members
      .filter((member) => member !== undefined)
      .filter(({ role }) => role !== 'part')
      .map(({ offset, size }) => ({ start: offset & ~7, end: (offset + Math.max(size, 1) + 7) & ~7 }))
      .sort((a, b) => a.start - b.start);
    const segments: ShapeSegment[] = [];
    let at = 0;
    let current: { start: number; end: number } | undefined;
    const close = () => {
      if (current === undefined) return;
      const length = current.end - current.start;
      segments.push({ offset: current.start, length, at });
      at += length;
    };
    for (const range of ranges) {
      if (current !== undefined && range.start - current.end < WORTH_A_READ) {
        current.end = Math.max(current.end, range.end);
        continue;
      }
      close();
      current = { ...range };
    }
    close();
    this.segments = segments;
    this.size = at;
  }

  /**
   * Position in a record of `length` bytes of the structure from offset `from`, if they are there in one piece;
   * otherwise -1.
   */
  piece(from: number, length: number): number {
    for (const { offset, length: there, at } of this.segments) {
      if (from >= offset && from + length <= offset + there) return at + from - offset;
    }
    return -1;
  }

  /**
   * Positions of these members in a record.
   * @throws DomschedError `layout-absent-member` for one that does not fit its declaration
   */
  slots<F extends Readonly<Record<string, Member | undefined>>>(found: F, links: ListLinks): Slots<F> {
    const slots = Object.entries(found).map(([name, member]) => [name, member && this.#slot(member, links)]);
    return Object.fromEntries(slots) as Slots<F>;
  }

  #slot(member: Member, links: ListLinks): Slot | PointerSlot | LinkSlot | BlockSlot | number {
    switch (member.role) {
      case 'number':
        return this.number(member);
      case 'pointer':
        return this.pointer(member);
      case 'list':
        return this.link(member, links);
      case 'block':
        return this.block(member);
      default:
        return member.offset;
    }
  }

  /**
   * A member that is a number, a bit field, or a structure around one word (`atomic_t`).
   * @throws DomschedError `layout-absent-member` if it is not a single word
   */
  number(field: Member): Slot {
    const { bits, bitSize, size, signed } = field;
    if (bitSize === undefined) {
      if (!isWord(size)) throw odd(field, 'no word');
      return {
        at: this.#at(field, field.offset, size),
        size,
        signed: signed ?? false,
        shift: 0,
        mask: ALL_BITS,
      };
    }
    // Reads as few whole bytes as hold the field, and nothing else of its word.
    const first = bits === undefined ? 0 : bits.shift >>> 3;
    const shift = bits === undefined ? 0 : bits.shift & 7;
    const width = [1, 2, 4].find((bytes) => shift + bitSize <= 8 * bytes) as 1 | 2 | 4 | undefined;
    if (bits === undefined || width === undefined || signed) throw odd(field, 'a bit field of another kind');
    const mask = 2 ** bitSize - 1;
    return { at: this.#at(field, bits.offset + first, width), size: width, signed: false, shift, mask };
  }

  /** A member that is a pointer or a word that contains one (`rb_node.__rb_parent_color`). */
  pointer(field: Member): PointerSlot {
    if (field.size !== POINTER_SIZE || field.bitSize !== undefined) throw odd(field, 'no pointer');
    return { pointerAt: this.#at(field, field.offset, POINTER_SIZE) };
  }

  /** A member that is a `list_head`, or begins with one. */
  link(field: Member, links: ListLinks): LinkSlot {
    const { offset } = field;
    const pointer = (link: number) => ({ pointerAt: this.#at(field, offset + link, POINTER_SIZE) });
    return { offset, next: pointer(links.next), prev: pointer(links.prev) };
  }

  /** A member larger than a word. */
  block(field: Member): BlockSlot {
    const { offset, size } = field;
    return { offset, at: this.#at(field, offset, size), size };
  }

  #at(field: Member, from: number, length: number): number {
    const at = this.piece(from, length);
    if (at >= 0) return at;
    throw new RangeError(`offset ${field.offset} (${field.type}) is in no segment of this shape`);
  }
}

/**
 * Positions of all numbers, pointers and blocks among these slots, in units of 4 bytes and ascending. Links are left out:
 * they change with the neighbours of an object.
 */
export function wordsOf(slots: Readonly<Record<string, unknown>>): Int32Array {
  const words = new Set<number>();
  for (const slot of Object.values(slots) as (Partial<PointerSlot & BlockSlot> | undefined)[]) {
    const at = slot?.pointerAt ?? slot?.at;
    if (at === undefined) continue;
    const size = slot?.pointerAt === undefined ? slot!.size! : POINTER_SIZE;
    for (let word = at >>> 2; 4 * word < at + size; word++) words.add(word);
  }
  return Int32Array.from(words).sort();
}

function isWord(size: number): size is Slot['size'] {
  return size === 1 || size === 2 || size === 4 || size === 8;
}

function odd({ type, size, offset }: Member, what: string): DomschedError {
  return new DomschedError(
    'layout-absent-member',
    `the member at offset ${offset} is a ${type} of ${size} bytes, ${what}: this kernel keeps it in a form that is not known`,
    { type, size, offset },
  );
}
