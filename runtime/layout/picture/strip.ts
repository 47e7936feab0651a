import { styleText } from 'node:util';
import type { StructView } from '../view.ts';
import { type OutlinePiece, outline } from './outline.ts';
import { type RowSegment, rowsOf } from './rows.ts';

type Style = Parameters<typeof styleText>[0];

const STYLES: Record<OutlinePiece['kind'] | 'bits', Style> = {
  int: ['bgBlue', 'white'],
  pointer: ['bgMagenta', 'white'],
  struct: ['bgGreen', 'black'],
  union: ['bgYellow', 'black'],
  array: ['bgCyan', 'black'],
  bool: ['bgRed', 'white'],
  enum: ['bgRed', 'white'],
  bits: ['bgYellow', 'black'],
  float: ['bgWhite', 'black'],
  opaque: ['bgWhite', 'black'],
  hole: ['dim'],
};

/**
 * Draws a structure as text, one row per cache line and `scale` columns per byte: `│` ends a member, `░` is a hole.
 *
 * @param options.scale columns per byte
 * @param options.colour whether to use terminal colours
 */
export function stripPicture(
  struct: StructView,
  { scale, colour }: { scale: 1 | 2; colour: boolean },
): string {
  const lines = rowsOf(outline(struct)).map((row) => {
    const cells = row.segments.map((segment) => cell(segment, segment.size * scale, colour)).join('');
    return `${String(row.offset).padStart(6)} ${cells}${row.lines > 1 ? ` ×${row.lines}` : ''}`;
  });
  return `${[ruler(scale), ...lines].join('\n')}\n`;
}

function cell({ piece, labelled, begins, ends }: RowSegment, width: number, colour: boolean): string {
  const paint = (text: string): string => {
    const style = STYLES[piece.role === 'bits' ? 'bits' : piece.kind];
    return colour ? styleText(style, text, { validateStream: false }) : text;
  };
  if (piece.kind === 'hole') return paint('░'.repeat(width));
  const room = ends ? width - 1 : width;
  const name = labelled ? piece.name : begins ? '' : `…${piece.name}`;
  const text =
    name.length <= room ? name.padEnd(room) : room < 2 ? '·'.repeat(room) : `${name.slice(0, room - 1)}…`;
  return paint(ends ? `${text}│` : text);
}

function ruler(scale: number): string {
  const marks = Array.from({ length: 8 }, (_, i) => `+${i * 8}`.padEnd(8 * scale));
  return `${' '.repeat(7)}${marks.join('').trimEnd()}`;
}
