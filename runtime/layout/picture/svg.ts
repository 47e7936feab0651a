import type { KernelFacts } from '../types.ts';
import type { StructView } from '../view.ts';
import { sizeFacts, sourceFacts, structTitle } from './facts.ts';
import { fit } from './fit.ts';
import { CACHE_LINE, type Outline, type OutlinePiece, outline } from './outline.ts';
import { type CacheLineRow, type RowSegment, rowsOf } from './rows.ts';
import { xml } from './xml.ts';

const BYTE = 17;
const GUTTER = 92;
const MARGIN = 28;
const ROW = 46;
const FOLDED = 34;
const GAP = 7;
const NOTE = 15;
/** Below this many pixels no letter in a bit field can be read. */
const LEGIBLE = 9;
const WIDTH = GUTTER + CACHE_LINE * BYTE + MARGIN;
const HEAD = 172;

/** Fill and line of each kind of box: light, then dark. */
const COLOURS = {
  int: ['#dce9f7', '#4f86bd', '#1d3650', '#5f9bd3'],
  pointer: ['#e8e0fa', '#8468c8', '#33274f', '#a58be6'],
  struct: ['#d9f1df', '#459563', '#1b3f29', '#5cb67d'],
  union: ['#fde9cf', '#c58629', '#4a3413', '#dca24a'],
  array: ['#d3f0f1', '#35929a', '#133f43', '#4fb5be'],
  bool: ['#fbdfe9', '#c1608a', '#4b1f33', '#de85a9'],
  enum: ['#fbdfe9', '#c1608a', '#4b1f33', '#de85a9'],
  bits: ['#fff2bf', '#ad9122', '#443a0d', '#cdb144'],
  float: ['#e8e8e8', '#808080', '#3a3a3a', '#a0a0a0'],
  opaque: ['#e8e8e8', '#808080', '#3a3a3a', '#a0a0a0'],
} as const;

type Colour = keyof typeof COLOURS;

const LEGEND: readonly (readonly [string, readonly (Colour | 'hole')[]])[] = [
  ['integer', ['int']],
  ['pointer', ['pointer']],
  ['structure', ['struct']],
  ['union', ['union']],
  ['array', ['array']],
  ['bool, enum', ['bool', 'enum']],
  ['bit fields', ['bits']],
  ['other', ['float', 'opaque']],
  ['hole or padding', ['hole']],
];

/**
 * Draws a structure as an SVG picture: one row per cache line, members as boxes to scale, holes hatched. It follows the
 * reader's light or dark setting, and hovering over a box shows type, offset and size.
 */
export function svgPicture(struct: StructView, kernel: KernelFacts): string {
  const found = outline(struct);
  const rows = rowsOf(found);
  let y = HEAD;
  const drawn = rows.map((row) => {
    const height = row.lines > 1 ? FOLDED : ROW;
    const notes = notesOf(row, height);
    const text = drawRow(row, y, height) + notesBelow(notes, y + height);
    y += height + notes.length * NOTE + GAP;
    return text;
  });
  const height = y - GAP + MARGIN;
  const title = `${structTitle(struct)} in Linux ${kernel.release}`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="title">`,
    `<title id="title">${xml(`${title}: ${sizeFacts(struct, found).join(', ')}`)}</title>`,
    STYLE,
    HATCH,
    `<rect class="page" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="${MARGIN}" y="48"><tspan class="name">${xml(structTitle(struct))}</tspan><tspan class="kernel" dx="14">Linux ${xml(kernel.release)}</tspan></text>`,
    `<text class="facts" x="${MARGIN}" y="74">${xml(sizeFacts(struct, found).join('  ·  '))}</text>`,
    `<text class="source" x="${MARGIN}" y="94">${xml(sourceFacts(kernel).join('  ·  '))}</text>`,
    legend(found, 112),
    scale(),
    ...drawn,
    '</svg>\n',
  ].join('\n');
}

function drawRow(row: CacheLineRow, y: number, height: number): string {
  const lines = row.lines > 1 ? `${row.lines} lines` : `0x${row.offset.toString(16)}`;
  const middle = y + height / 2;
  return [
    '<g>',
    `<text class="offset" x="${GUTTER - 12}" y="${middle - 1}">${row.offset}</text>`,
    `<text class="hex" x="${GUTTER - 12}" y="${middle + 11}">${lines}</text>`,
    ...row.segments.map((segment) => drawSegment(segment, row, y, height)),
    '</g>',
  ].join('\n');
}

function drawSegment(segment: RowSegment, row: CacheLineRow, y: number, height: number): string {
  const { piece } = segment;
  const x = GUTTER + segment.start * BYTE;
  const width = segment.size * BYTE;
  const isHole = piece.kind === 'hole';
  const shape = `x="${x + 0.75}" y="${y + 0.75}" width="${width - 1.5}" height="${height - 1.5}" rx="4"`;
  const parts = [`<g><title>${xml(tooltip(piece))}</title>`];
  parts.push(`<rect class="box ${colourOf(piece)}" ${shape}/>`);
  if (isHole) parts.push(`<rect class="hatch" fill="url(#hatch)" ${shape}/>`);
  if (row.lines > 1) {
    parts.push(
      `<rect class="fold ${colourOf(piece)}" x="${x + 5}" y="${y + 4}" width="${width - 10}" height="${height - 8}" rx="3"/>`,
    );
  }
  if (piece.bits && segment.begins && segment.ends) parts.push(bitBoxes(piece, x, y, width, height));
  else parts.push(labelOf(segment, row, x, y, width, height));
  parts.push('</g>');
  return parts.join('');
}

function labelOf(
  segment: RowSegment,
  row: CacheLineRow,
  x: number,
  y: number,
  width: number,
  height: number,
): string {
  const { piece } = segment;
  const middle = x + width / 2;
  if (piece.kind === 'hole') {
    const text =
      width >= 130
        ? `${piece.size}-byte ${piece.role}`
        : width >= 64
          ? `${piece.size} bytes`
          : `${piece.size}`;
    return segment.labelled
      ? `<text class="holes" x="${middle}" y="${y + height / 2 + 4}">${text}</text>`
      : '';
  }
  if (row.lines > 1) {
    const text = `${piece.name}  ·  ${piece.type}  ·  ${piece.size.toLocaleString('en-US')} bytes`;
    return `<text class="label" font-size="12" x="${middle}" y="${y + height / 2 + 4}">${xml(clip(text, width, 12))}</text>`;
  }
  if (!segment.labelled) {
    const text = clip(`… ${piece.name}`, width - 8, 10);
    return text.length > 3
      ? `<text class="type" x="${middle}" y="${y + height / 2 + 3.5}">${xml(text)}</text>`
      : '';
  }
  return boxText(piece.name, piece.type, x, y, width, height);
}

/** A name that fits its box, with the type below it if there is room. */
function boxText(name: string, type: string, x: number, y: number, width: number, height: number): string {
  const { lines, size, upright } = fitName(name, width, height);
  const middleX = x + width / 2;
  const middleY = y + height / 2;
  const withType = upright && lines.length === 1 && type !== '' && width > 60;
  const total = lines.length * size * 1.12;
  const first = -total / 2 + size * 0.84 - (withType ? 7 : 0);
  const turned = upright ? '' : ` transform="rotate(-90 ${middleX} ${middleY})"`;
  const spans = lines
    .map(
      (line, i) =>
        `<tspan x="${middleX}" y="${round(middleY + first + i * size * 1.12)}">${xml(line)}</tspan>`,
    )
    .join('');
  const label = `<text class="label" font-size="${size}"${turned}>${spans}</text>`;
  if (!withType) return label;
  return `${label}<text class="type" x="${middleX}" y="${round(middleY + 13)}">${xml(clip(type, width - 8, 10))}</text>`;
}

function fitName(name: string, width: number, height: number) {
  return fit(name, width - 5, height - 6);
}

/** Bit fields side by side, each as wide as its bits. */
function bitBoxes(piece: OutlinePiece, x: number, y: number, width: number, height: number): string {
  const bit = width / (piece.size * 8);
  return piece
    .bits!.map(({ name, start, size }) => {
      const left = x + start * bit;
      const rect = `<rect class="bit" x="${round(left + 1.5)}" y="${y + 4}" width="${round(size * bit - 1)}" height="${height - 8}"/>`;
      return size * bit < LEGIBLE ? rect : rect + boxText(name, '', left, y + 3, size * bit, height - 6);
    })
    .join('');
}

/** Names in a row whose boxes are too narrow for them, one line per piece. */
function notesOf(row: CacheLineRow, height: number): string[] {
  return row.segments.flatMap(({ piece, size, labelled, begins, ends }) => {
    const width = size * BYTE;
    if (piece.bits && begins && ends) {
      const bit = width / (piece.size * 8);
      if (piece.bits.every((field) => field.size * bit >= LEGIBLE)) return [];
      return notesFor(
        piece,
        row,
        piece.bits.map((field) => `${field.name}:${field.size}`),
      );
    }
    const isCut =
      labelled && piece.kind !== 'hole' && row.lines === 1 && fitName(piece.name, width, height).isCut;
    return isCut ? notesFor(piece, row, [piece.name]) : [];
  });
}

function notesFor(piece: OutlinePiece, row: CacheLineRow, names: readonly string[]): string[] {
  const prefix = `+${piece.offset - row.offset}  `;
  const room = Math.floor((CACHE_LINE * BYTE) / (10.5 * 0.602)) - prefix.length;
  const lines = [''];
  for (const name of names) {
    if (lines.at(-1)!.length + name.length + 2 > room && lines.at(-1) !== '') lines.push('');
    lines[lines.length - 1] += `${name}  `;
  }
  return lines.map(
    (line, i) => (i === 0 ? prefix : ' '.repeat(prefix.length)) + line.trimEnd().slice(0, room),
  );
}

function notesBelow(notes: readonly string[], y: number): string {
  return notes
    .map(
      (note, i) =>
        `<text class="note" x="${GUTTER + 3}" y="${y + 12 + i * NOTE}" xml:space="preserve">${xml(note)}</text>`,
    )
    .join('');
}

function legend(found: Outline, y: number): string {
  let x = MARGIN;
  const parts: string[] = [];
  for (const [text, colours] of LEGEND) {
    const bytes = found.pieces
      .filter((piece) => colours.includes(colourOf(piece)))
      .reduce((sum, piece) => sum + piece.size, 0);
    if (bytes === 0) continue;
    const hole = colours[0] === 'hole';
    const shape = `x="${x}" y="${y}" width="18" height="13" rx="3"`;
    parts.push(
      `<rect class="box ${colours[0]}" ${shape}/>${hole ? `<rect class="hatch" fill="url(#hatch)" ${shape}/>` : ''}`,
    );
    const label = `${text} ${bytes.toLocaleString('en-US')}`;
    parts.push(`<text class="key" x="${x + 24}" y="${y + 11}">${label}</text>`);
    x += 24 + label.length * 6.9 + 20;
  }
  return parts.join('\n');
}

/** Byte numbers above the rows, with a tick at every word. */
function scale(): string {
  const marks: string[] = [];
  for (let byte = 0; byte < CACHE_LINE; byte += 8) {
    const x = GUTTER + byte * BYTE;
    marks.push(
      `<text class="scale" x="${x + 3}" y="${HEAD - 11}">+${byte}</text><path class="tick" d="M${x} ${HEAD - 22}v16"/>`,
    );
  }
  return marks.join('');
}

function tooltip(piece: OutlinePiece): string {
  const range = `bytes ${piece.offset}–${piece.offset + piece.size - 1} (${piece.size})`;
  if (piece.kind === 'hole') return `${piece.role}: ${range}`;
  if (piece.bits) return `${piece.bits.map(({ name, size }) => `${name}:${size}`).join(', ')}\n${range}`;
  return `${piece.type} ${piece.name}\n${range}`;
}

function colourOf(piece: OutlinePiece): Colour | 'hole' {
  return piece.role === 'bits' ? 'bits' : piece.kind;
}

function clip(text: string, width: number, size: number): string {
  const room = Math.floor(width / (size * 0.602));
  return text.length <= room ? text : room < 2 ? '' : `${text.slice(0, room - 1)}…`;
}

function round(n: number): number {
  return Math.round(n * 100) / 100;
}

const rule = (name: string, fill: string, line: string): string => `.${name}{fill:${fill};stroke:${line}}`;

const STYLE = [
  '<style>',
  'text{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#1c2430}',
  '.page{fill:#ffffff}.box{stroke-width:1.25}.label,.type,.holes{text-anchor:middle}.label{font-weight:600}',
  '.title,.facts,.source,.key{font-family:system-ui,"Segoe UI","DejaVu Sans",sans-serif}',
  '.name{font-size:28px;font-weight:700}.kernel{font-size:20px;fill:#5a6675}.facts{font-size:15px}',
  '.source{font-size:12px;fill:#6b7685}.key{font-size:12.5px;fill:#3b4654}',
  '.offset{font-size:13px;text-anchor:end;font-weight:600}.hex,.scale{font-size:10px;fill:#8a94a1}.hex{text-anchor:end}',
  '.note{font-size:10.5px;fill:#7a6410}.type{font-size:10px;fill:#5a6675}.holes{font-size:11px;font-weight:600;fill:#b23b3b}',
  '.tick{stroke:#c4ccd6;stroke-width:1}.fold{fill-opacity:0;stroke-dasharray:3 3}',
  '.hole{fill:#fff5f5;stroke:#d88080;stroke-dasharray:4 2}.hatch{stroke:none}.stripe{stroke:#e2a0a0;stroke-width:2}',
  '.bit{fill:#ffffff;fill-opacity:.45;stroke:#ad9122;stroke-width:.75}',
  ...Object.entries(COLOURS).map(([name, [fill, line]]) => rule(name, fill, line)),
  '@media(prefers-color-scheme:dark){text{fill:#e8edf3}.page{fill:#12161c}.kernel,.type{fill:#a9b4c2}',
  '.source,.hex,.scale{fill:#8b97a6}.key{fill:#c5ced9}.note{fill:#d9c063}.tick{stroke:#3c4654}.holes{fill:#ff9d9d}',
  '.hole{fill:#2a1616;stroke:#a05555}.stripe{stroke:#6e3a3a}.bit{fill:#000000;fill-opacity:.25;stroke:#cdb144}',
  ...Object.entries(COLOURS).map(([name, [, , fill, line]]) => rule(name, fill, line)),
  '}</style>',
].join('\n');

const HATCH =
  '<defs><pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">' +
  '<path class="stripe" d="M0 0v8"/></pattern></defs>';
