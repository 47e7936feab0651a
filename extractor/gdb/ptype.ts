import { type CDeclaration, parseDeclaration } from './declaration.ts';

/** A structure or union as printed by `ptype /o`. */
export interface PrintedRecord {
  kind: 'struct' | 'union';
  tag: string | null;
  size: number;
  fields: PrintedField[];
}

export interface PrintedField {
  declaration: CDeclaration;
  /** As printed; null in unions, where gdb prints none. */
  offset: number | null;
  bitOffset: number | null;
  size: number;
  /** For fields whose type is printed in full. */
  record: PrintedRecord | null;
}

/** Text that gdb does not print for a structure. */
export class PtypeError extends Error {
  override readonly name = 'PtypeError';
}

const HEADING = /^\/\* offset {6}\| {4}size \*\/ {2}type = (.*)$/;
const FIELD = /^\/\*\s+(?:(\d+)(?::\s*(\d+))?\s+\|\s*)?(\d+) \*\/\s+(\S.*)$/;
const OPENING = /^(?:(?:const|volatile) )*(struct|union)(?: ([A-Za-z_$][\w$]*))? \{$/;
const TOTAL = /^\/\* total size \(bytes\):\s*(\d+) \*\/$/;

interface Open {
  record: PrintedRecord;
  /** The field of which this is the type; null for the outermost. */
  place: { offset: number | null; size: number; opening: string } | null;
}

/**
 * Parses the output of gdb 12 and later for `ptype /o` of a structure or union.
 * @throws PtypeError
 */
export function parsePtype(text: string): PrintedRecord {
  const open: Open[] = [];
  for (const line of text.split('\n')) {
    const trimmed = line.trim();
    const heading =
      HEADING.exec(line)?.[1] ?? (open.length === 0 ? /^type = (.*)$/.exec(line)?.[1] : undefined);
    if (heading !== undefined) {
      const opening = OPENING.exec(heading);
      if (!opening || open.length) throw new PtypeError(`gdb printed "${line}"`);
      open.push({ record: emptyRecord(opening), place: null });
      continue;
    }
    if (trimmed === '' || trimmed.startsWith('/* XXX') || trimmed === '<no data fields>') continue;
    const current = open.at(-1);
    if (!current) throw new PtypeError(`gdb printed "${line}"`);
    const total = TOTAL.exec(trimmed);
    if (total) {
      current.record.size = Number(total[1]);
      continue;
    }
    if (trimmed.startsWith('}')) {
      open.pop();
      const parent = open.at(-1);
      if (!parent || !current.place) return current.record;
      parent.record.fields.push(closeField(current.record, current.place, trimmed.slice(1)));
      continue;
    }
    const field = FIELD.exec(line);
    if (!field) throw new PtypeError(`gdb printed "${line}"`);
    const [, offset, bit, size, declared] = field;
    const place = { offset: offset === undefined ? null : Number(offset), size: Number(size) };
    const opening = OPENING.exec(declared!);
    if (opening) {
      open.push({ record: emptyRecord(opening), place: { ...place, opening: declared!.slice(0, -2) } });
      continue;
    }
    const declaration = declared!.endsWith(';') ? parseDeclaration(declared!.slice(0, -1), true) : null;
    if (!declaration) throw new PtypeError(`gdb printed "${declared}"`);
    const bitOffset = bit === undefined ? null : Number(bit);
    current.record.fields.push({ declaration, ...place, bitOffset, record: null });
  }
  throw new PtypeError('gdb printed no whole structure');
}

function emptyRecord([, kind, tag]: RegExpExecArray): PrintedRecord {
  return { kind: kind as 'struct' | 'union', tag: tag ?? null, size: 0, fields: [] };
}

function closeField(record: PrintedRecord, place: NonNullable<Open['place']>, end: string): PrintedField {
  const text = end.trim().replace(/;$/, '');
  const type = record.tag === null ? `${place.opening} {...}` : place.opening;
  const declaration = parseDeclaration(text ? `${type} ${text}` : type, text !== '');
  if (!declaration) throw new PtypeError(`gdb printed "}${end}"`);
  return { declaration, offset: place.offset, bitOffset: null, size: place.size, record };
}

/**
 * Finds every field and its true offset from the start of `record`, in bytes, depth first.
 *
 * gdb keeps the base of the offsets that it prints within fields of structure type in one variable, but does not set it
 * for arrays of structures: there it adds the base of the field that last set it.
 */
export function placeFields(record: PrintedRecord): Map<PrintedField, number> {
  const offsets = new Map<PrintedField, number>();
  place(record, 0, 0, offsets);
  return offsets;
}

/** @param printedBase what gdb added to the offsets in `record` @param base what it should have added */
function place(
  record: PrintedRecord,
  printedBase: number,
  base: number,
  offsets: Map<PrintedField, number>,
): void {
  let last = 0;
  for (const field of record.fields) {
    const within = (field.offset ?? printedBase) - printedBase;
    offsets.set(field, base + within);
    const isArray = field.declaration.dims.length > 0;
    const isStructure = !isArray && field.declaration.shape === 'plain' && field.record !== null;
    if (isStructure) last = printedBase + within;
    if (field.record) place(field.record, last, base + within, offsets);
  }
}
