import type { Place } from './fields.ts';

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

  /** Where a member is in a record; -1 for a member that the kernel does not have. */
  at(field: Place | undefined): number {
    if (field === undefined) return -1;
    for (const { offset, length, at } of this.segments) {
      if (field.offset >= offset && field.offset + field.size <= offset + length)
        return at + field.offset - offset;
    }
    throw new RangeError(`offset ${field.offset} is in no segment of this shape`);
  }
}
