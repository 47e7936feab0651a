import { CACHE_LINE, type Outline, type OutlinePiece } from './outline.ts';

/** The part of a piece that lies in one cache line. */
export interface RowSegment {
  readonly piece: OutlinePiece;
  /** Bytes from the start of the row. */
  readonly start: number;
  readonly size: number;
  /** Whether this is the (first) widest part of its piece, which carries the name. */
  readonly labelled: boolean;
  readonly begins: boolean;
  readonly ends: boolean;
}

/** One cache line of the picture, or several that one member fills, drawn as one. */
export interface CacheLineRow {
  /** Bytes from the start of the structure. */
  readonly offset: number;
  /** Number of cache lines that this row represents. */
  readonly lines: number;
  readonly segments: readonly RowSegment[];
}

/** Splits a structure into cache lines. If one member fills three or more, the middle ones become one row. */
export function rowsOf({ pieces }: Outline): CacheLineRow[] {
  const rows: CacheLineRow[] = [];
  const end = pieces.length === 0 ? 0 : pieces.at(-1)!.offset + pieces.at(-1)!.size;
  let first = 0;
  for (let offset = 0; offset < end; ) {
    while (pieces[first]!.offset + pieces[first]!.size <= offset) first++;
    const full = Math.floor((pieces[first]!.offset + pieces[first]!.size - offset) / CACHE_LINE);
    const lines = pieces[first]!.offset <= offset && full >= 3 ? full : 1;
    const segments: RowSegment[] = [];
    for (let i = first; i < pieces.length && pieces[i]!.offset < offset + lines * CACHE_LINE; i++) {
      const piece = pieces[i]!;
      const from = Math.max(piece.offset, offset);
      const to = Math.min(piece.offset + piece.size, offset + lines * CACHE_LINE);
      segments.push({
        piece,
        start: from - offset,
        size: lines > 1 ? CACHE_LINE : to - from,
        labelled: lines > 1 || from === widest(piece),
        begins: from === piece.offset,
        ends: to === piece.offset + piece.size,
      });
    }
    rows.push({ offset, lines, segments });
    offset += lines * CACHE_LINE;
  }
  return rows;
}

/** Offset of the widest part of a piece that fits in one cache line: its name goes there. */
function widest({ offset, size }: OutlinePiece): number {
  const end = offset + size;
  const next = (Math.floor(offset / CACHE_LINE) + 1) * CACHE_LINE;
  if (end <= next) return offset;
  const head = next - offset;
  const second = Math.min(end - next, CACHE_LINE);
  // The head is preferred if it has a third of a line, because a reader looks there first.
  return head >= second || head >= CACHE_LINE / 3 ? offset : next;
}
