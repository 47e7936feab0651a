import { ExtractError } from '../error.ts';
import { asBuffer } from './byte-source.ts';
import type { ElfImage, SectionHeader } from './image.ts';
import type { SectionData } from './kernel-file.ts';
import { openSection, PreparedSection, plainName } from './section.ts';
import { SYMBOL, sectionIndexes } from './symbol-table.ts';

/** Size of an Elf64_Rela: place, type and symbol, addend. */
const ENTRY = 24;
/** Entries read at once. */
const BATCH = 1 << 15;

/** Width in bytes of the relocations that occur in debug information (x86-64 psABI, table 4.9); all are S + A. */
const WIDTHS: Readonly<Record<number, { bytes: 1 | 2 | 4 | 8; signed?: true }>> = {
  1: { bytes: 8 }, // R_X86_64_64
  10: { bytes: 4 }, // R_X86_64_32
  11: { bytes: 4, signed: true }, // R_X86_64_32S
  12: { bytes: 2 }, // R_X86_64_16
  14: { bytes: 1 }, // R_X86_64_8
  17: { bytes: 8 }, // R_X86_64_DTPOFF64
  21: { bytes: 4, signed: true }, // R_X86_64_DTPOFF32
};
const R_X86_64_NONE = 0;

/** Whether a section must be linked before use: in an object or module, and not part of its memory. */
export function needsLinking(image: ElfImage, header: SectionHeader): boolean {
  return image.relocatable && !header.allocated && plainName(header.name).startsWith('.debug_');
}

/**
 * Links a relocatable file's debug sections of one name: concatenates them (type units have a section each) and applies
 * their relocations. Sections in memory begin at 0, as in the file. An executable may keep such relocations
 * (`--emit-relocs`), but its bytes are final.
 *
 * @throws ExtractError on reading: `corrupt-elf`, `truncated`, `unsupported-relocation`
 */
export function linkedSection(image: ElfImage, name: string): SectionData {
  const parts = placed(image, name);
  const [{ section: first }] = parts as [SectionPart];
  const relocated = parts.some(({ header }) => relocationsOf(image, header).length > 0);
  if (parts.length === 1 && !relocated) return first;
  const size = parts.reduce((sum, { section }) => sum + section.size, 0);
  return new PreparedSection(image.source.path, name, first.address, size, () => {
    const bytes = Buffer.allocUnsafeSlow(size);
    for (const { section, start } of parts) {
      section.read(0, section.size, bytes.subarray(start, start + section.size));
    }
    for (const { header, section, start } of parts) {
      const target = bytes.subarray(start, start + section.size);
      for (const relocations of relocationsOf(image, header)) apply(image, relocations, target, name);
    }
    return bytes;
  });
}

interface SectionPart {
  readonly header: SectionHeader;
  readonly section: SectionData;
  /** Its offset among the sections of its name. */
  readonly start: number;
}

function placed(image: ElfImage, name: string): SectionPart[] {
  let start = 0;
  return image.headers
    .filter((header) => plainName(header.name) === name && needsLinking(image, header))
    .map((header) => {
      const part = { header, section: openSection(image, header), start };
      start += part.section.size;
      return part;
    });
}

function relocationsOf(image: ElfImage, target: SectionHeader): SectionHeader[] {
  return image.relocations.get(target.index) ?? [];
}

function apply(image: ElfImage, relocations: SectionHeader, target: Buffer, name: string): void {
  const { path } = image.source;
  if (relocations.type !== 'rela') throw unsupported(path, name, `section type ${relocations.type}`);
  const resolve = symbolValues(image, relocations);
  const entries = openSection(image, relocations);
  for (let from = 0; from < entries.size; from += BATCH * ENTRY) {
    const batch = asBuffer(entries.read(from, Math.min(BATCH * ENTRY, entries.size - from)));
    for (let at = 0; at + ENTRY <= batch.length; at += ENTRY) {
      const type = batch.readUInt32LE(at + 8);
      if (type === R_X86_64_NONE) continue;
      const width = WIDTHS[type];
      if (!width) throw unsupported(path, name, `type ${type}`);
      const place = Number(batch.readBigUInt64LE(at));
      if (place + width.bytes > target.length) throw corrupt(path, name, `at ${place}, outside of it`);
      const value = resolve(batch.readUInt32LE(at + 12)) + batch.readBigInt64LE(at + 16);
      const bits = width.bytes * 8;
      const stored = BigInt.asUintN(bits, value);
      const read = width.signed ? BigInt.asIntN(bits, stored) : stored;
      if (width.bytes < 8 && read !== value) throw corrupt(path, name, `at ${place} that does not fit`);
      if (width.bytes === 8) target.writeBigUInt64LE(stored, place);
      else target.writeUIntLE(Number(stored), place, width.bytes);
    }
  }
}

/** Returns a symbol's value; for a section of debug information, its offset among those of its name. */
function symbolValues(image: ElfImage, relocations: SectionHeader): (symbol: number) => bigint {
  const { path } = image.source;
  const table = image.headers[relocations.link];
  if (table?.type !== 'symtab') throw corrupt(path, relocations.name, 'without a symbol table');
  const symbols = asBuffer(openSection(image, table).read());
  const sectionOf = sectionIndexes(image, table, symbols);
  const starts = new Map<number, bigint>();
  const startOf = (index: number): bigint => {
    const header = image.headers[index];
    if (!header || !needsLinking(image, header)) return 0n;
    if (!starts.has(index)) {
      for (const { header: its, start } of placed(image, plainName(header.name))) {
        starts.set(its.index, BigInt(start));
      }
    }
    return starts.get(index)!;
  };
  const known = new Map<number, bigint>();
  return (symbol) => {
    let value = known.get(symbol);
    if (value === undefined) {
      const at = symbol * SYMBOL.size;
      if (at + SYMBOL.size > symbols.length) {
        throw corrupt(path, relocations.name, `by symbol ${symbol}, which is not there`);
      }
      const section = sectionOf(symbol);
      // Symbols in other sections or in none yet (undefined, common) have no address.
      value = section === null ? 0n : symbols.readBigUInt64LE(at + SYMBOL.value) + startOf(section);
      known.set(symbol, value);
    }
    return value;
  };
}

function corrupt(path: string, section: string, what: string): ExtractError {
  return new ExtractError(
    'corrupt-elf',
    `${path} is damaged: it has a relocation of ${section} ${what}; fetch or copy it again`,
    { path, section, what },
  );
}

function unsupported(path: string, section: string, kind: string): ExtractError {
  return new ExtractError(
    'unsupported-relocation',
    `${path} is not linked, and ${section} has relocations of a kind that is not known here (${kind}); ` +
      'give the file that it is linked into',
    { path, section, kind },
  );
}
