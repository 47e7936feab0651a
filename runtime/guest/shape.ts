import { DomschedError } from '../error.ts';
import type { Place } from './fields.ts';

/**
 * Where a number is in a record, and how it is read. Only a {@link Shape} makes one, out of a member of the layout, so
 * that nothing is ever read with another width or sign than the kernel's own.
 */
export interface Slot {
  /** In the record. */
  readonly at: number;
  /** Bytes. */
  readonly size: 1 | 2 | 4 | 8;
  readonly signed: boolean;
  /** Bit fields: bits below it in its bytes, and its own. */
  readonly shift: number;
  readonly mask: number;
}

/** Where a pointer is in a record. */
export interface PointerSlot {
  readonly pointerAt: number;
}

/** A link of a list: the two pointers of a `list_head`. */
export interface LinkSlot {
  readonly next: PointerSlot;
  readonly prev: PointerSlot;
}

/** Where something larger is in a record: a name, an array. */
export interface BlockSlot {
  readonly at: number;
  readonly size: number;
}

const ALL_BITS = 0xffff_ffff;
const POINTER_SIZE = 8;

/** Bytes of a structure that are read in one go. */
export interface Segment {
  /** In the structure; a multiple of 8. */
  readonly offset: number;
  /** A multiple of 8. */
  readonly length: number;
  /** Where its copy is in a record. */
  readonly at: number;
}

/** Fewer bytes between two members than this cost less to copy than one more read costs (measured: 400 to 1,000). */
const WORTH_A_READ = 768;

/**
 * Which parts of a structure a snapshot copies, and where each member is in the copy. A `task_struct` has some
 * 10,000 bytes, of which schedulers need a few hundred at a handful of places.
 */
export class Shape {
  readonly segments: readonly Segment[];
  /** Bytes of a record. */
  readonly size: number;

  /** @param fields members to copy; undefined ones are left out */
  constructor(fields: readonly (Place | undefined)[]) {
    const ranges = fields
      .filter((field) => field !== undefined)
      .map(({ offset, size }) => ({ start: offset & ~7, end: (offset + Math.max(size, 1) + 7) & ~7 }))
      .sort((a, b) => a.start - b.start);
    const segments: Segment[] = [];
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
   * Where the bytes from `from` on of the structure are in a record, if `length` of them are there in one piece;
   * else -1.
   */
  piece(from: number, length: number): number {
    for (const { offset, length: there, at } of this.segments) {
      if (from >= offset && from + length <= offset + there) return at + from - offset;
    }
    return -1;
  }

  /**
   * A member that is a number, a bit field, or a structure around one word (`atomic_t`).
   * @throws DomschedError `layout-absent-member` for what is no single word
   */
  number(field: Place): Slot;
  number(field: Place | undefined): Slot | undefined;
  number(field: Place | undefined): Slot | undefined {
    if (field === undefined) return undefined;
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
    // Whole bytes, and as few as hold it: nothing else of its word is looked at.
    const first = bits === undefined ? 0 : bits.shift >>> 3;
    const shift = bits === undefined ? 0 : bits.shift & 7;
    const width = [1, 2, 4].find((bytes) => shift + bitSize <= 8 * bytes) as 1 | 2 | 4 | undefined;
    if (bits === undefined || width === undefined || signed) throw odd(field, 'a bit field of another kind');
    const mask = 2 ** bitSize - 1;
    return { at: this.#at(field, bits.offset + first, width), size: width, signed: false, shift, mask };
  }

  /** The words of a member that is so many of one size, one after the other. */
  words(field: Place, count: number): Slot[] {
    const size = field.size / count;
    return Array.from({ length: count }, (_, i) =>
      this.number({ ...field, size, offset: field.offset + i * size }),
    );
  }

  /** A member that is a pointer, or a word that holds one (`rb_node.__rb_parent_color`). */
  pointer(field: Place): PointerSlot;
  pointer(field: Place | undefined): PointerSlot | undefined;
  pointer(field: Place | undefined): PointerSlot | undefined {
    if (field === undefined) return undefined;
    if (field.size !== POINTER_SIZE || field.bitSize !== undefined) throw odd(field, 'no pointer');
    return { pointerAt: this.#at(field, field.offset, POINTER_SIZE) };
  }

  /** A member that is a `list_head`, or begins with one. @param links of `list_head`, by its layout */
  link(field: Place, links: ListLayout): LinkSlot;
  link(field: Place | undefined, links: ListLayout): LinkSlot | undefined;
  link(field: Place | undefined, links: ListLayout): LinkSlot | undefined {
    if (field === undefined) return undefined;
    const pointer = (offset: number) => ({ pointerAt: this.#at(field, field.offset + offset, POINTER_SIZE) });
    return { next: pointer(links.next), prev: pointer(links.prev) };
  }

  /** A member that is more than a word. */
  block(field: Place): BlockSlot;
  block(field: Place | undefined): BlockSlot | undefined;
  block(field: Place | undefined): BlockSlot | undefined {
    return field === undefined
      ? undefined
      : { at: this.#at(field, field.offset, field.size), size: field.size };
  }

  #at(field: Place, from: number, length: number): number {
    const at = this.piece(from, length);
    if (at >= 0) return at;
    throw new RangeError(`offset ${field.offset} (${field.type}) is in no segment of this shape`);
  }
}

/** Offsets of the two pointers in a `list_head`, and its size. */
export interface ListLayout {
  readonly next: number;
  readonly prev: number;
  readonly size: number;
}

function isWord(size: number): size is Slot['size'] {
  return size === 1 || size === 2 || size === 4 || size === 8;
}

function odd({ type, size, offset }: Place, what: string): DomschedError {
  return new DomschedError(
    'layout-absent-member',
    `the member at offset ${offset} is a ${type} of ${size} bytes, ${what}: this kernel keeps it in a form that is not known`,
    { type, size, offset },
  );
}
