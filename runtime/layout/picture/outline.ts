import type { MemberKind, MemberLayout } from '../types.ts';
import type { StructView } from '../view.ts';

/** A range of a structure's bytes with one use: a member, the members of a union, or adjacent bit fields. */
export interface OutlinePiece {
  readonly role: 'member' | 'union' | 'bits' | 'hole' | 'padding';
  readonly kind: MemberKind | 'hole';
  /** Empty for holes; the members' names for unions and bit fields. */
  readonly name: string;
  readonly type: string;
  /** Offset from the structure's start and size, in bytes. */
  readonly offset: number;
  readonly size: number;
  readonly bits?: readonly BitPiece[];
}

export interface BitPiece {
  readonly name: string;
  /** Bits from the start of the piece. */
  readonly start: number;
  readonly size: number;
}

export interface Outline {
  /** In order, without overlap or gap, from byte 0 to the structure's size. Members of size 0 are left out. */
  readonly pieces: readonly OutlinePiece[];
  readonly memberCount: number;
  readonly holeCount: number;
  /** Unused bytes between members. */
  readonly holeBytes: number;
  /** Bytes after the last member. */
  readonly paddingBytes: number;
}

/** Bytes of a cache line on x86-64. */
export const CACHE_LINE = 64;

/** Finds out what each byte of a structure contains. Holes inside an anonymous struct count as the structure's own. */
export function outline(struct: StructView): Outline {
  const taken = merge([...occupied(struct)].sort((a, b) => a.offset - b.offset || b.size - a.size));
  const pieces: OutlinePiece[] = [];
  let at = 0;
  const gap = (to: number, role: 'hole' | 'padding') => {
    if (to > at) pieces.push({ role, kind: 'hole', name: '', type: '', offset: at, size: to - at });
  };
  for (const piece of taken) {
    gap(piece.offset, 'hole');
    pieces.push(piece);
    at = piece.offset + piece.size;
  }
  gap(struct.size, 'padding');
  const holes = pieces.filter((piece) => piece.role === 'hole');
  return {
    pieces,
    memberCount: struct.members.size,
    holeCount: holes.length,
    holeBytes: holes.reduce((sum, piece) => sum + piece.size, 0),
    paddingBytes: pieces.find((piece) => piece.role === 'padding')?.size ?? 0,
  };
}

function* occupied(struct: StructView): Generator<OutlinePiece> {
  if (struct.kind === 'union') {
    const name = [...struct.members.keys()].join(' | ');
    yield {
      role: 'union',
      kind: 'union',
      name,
      type: `union ${struct.sourceName}`,
      offset: 0,
      size: struct.size,
    };
    return;
  }
  const unions = new Map<number, string[]>();
  for (const [name, member] of struct.members) {
    const union = unionAround(struct, member);
    if (union !== undefined) {
      const names = unions.get(union);
      if (names) names.push(name);
      else unions.set(union, [name]);
    } else if (member.bitSize !== undefined) {
      const first = member.offset * 8 + (member.bitOffset ?? 0);
      const offset = first >> 3;
      const size = Math.ceil((first + member.bitSize) / 8) - offset;
      const bits = [{ name, start: first - offset * 8, size: member.bitSize }];
      yield { role: 'bits', kind: member.kind, name, type: member.type, offset, size, bits };
    } else if (member.size > 0) {
      const { kind, type, offset, size } = member;
      yield { role: 'member', kind, name, type, offset, size };
    }
  }
  for (const [index, names] of unions) {
    const { offset, size, type } = struct.anonymous[index]!;
    yield { role: 'union', kind: 'union', name: names.join(' | '), type, offset, size };
  }
}

/** The outermost anonymous union around a member: its members share bytes. */
function unionAround(struct: StructView, member: MemberLayout): number | undefined {
  let found: number | undefined;
  for (let index = member.in; index !== undefined; index = struct.anonymous[index]?.in) {
    if (struct.anonymous[index]?.kind === 'union') found = index;
  }
  return found;
}

/** Joins bit fields that are adjacent or share a byte; other overlaps (hostile or odd layouts) are trimmed. */
function merge(sorted: readonly OutlinePiece[]): OutlinePiece[] {
  const out: OutlinePiece[] = [];
  for (const piece of sorted) {
    const last = out.at(-1);
    const end = last ? last.offset + last.size : 0;
    if (last?.bits && piece.bits && piece.offset <= end) {
      const shift = (piece.offset - last.offset) * 8;
      const bits = [...last.bits, ...piece.bits.map((bit) => ({ ...bit, start: bit.start + shift }))];
      const size = Math.max(end, piece.offset + piece.size) - last.offset;
      out[out.length - 1] = { ...last, name: bits.map((bit) => bit.name).join(', '), size, bits };
    } else if (piece.offset >= end) {
      out.push(piece);
    } else if (piece.offset + piece.size > end) {
      out.push({ ...piece, offset: end, size: piece.offset + piece.size - end });
    }
  }
  return out;
}
