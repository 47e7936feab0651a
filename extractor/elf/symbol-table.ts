import { ExtractError } from '../error.ts';
import { asBuffer } from './byte-source.ts';
import type { ElfImage, SectionHeader } from './image.ts';
import type { KernelSymbol } from './kernel-file.ts';
import { NameMatcher } from './name-matcher.ts';
import { openSection } from './section.ts';
import type { SymbolSource } from './symbol-source.ts';

/** An Elf64_Sym: its size, and offsets of the defining section's index and the value. */
export const SYMBOL = { size: 24, section: 6, value: 8 } as const;
const STB_LOCAL = 0;
const SHN_UNDEF = 0;
const SHN_LORESERVE = 0xff00;
/** The index does not fit: it is in the table of SHT_SYMTAB_SHNDX, with 32 bits per symbol. */
const SHN_XINDEX = 0xffff;
/** STT_SECTION and STT_FILE name no object of the kernel. */
const STT_SECTION = 3;
const STT_FILE = 4;

/** A distribution's kernel has about 4 MiB of each; a larger table is not read. */
const MAX_TABLE = 256 << 20;
/** Longest symbol name accepted; KSYM_NAME_LEN of the kernel is 512. */
const MAX_NAME = 4096;

/** `.symtab` with its strings, read once; names are decoded only for requested symbols. */
export class SymbolTable implements SymbolSource {
  readonly #symbols: Buffer;
  readonly #strings: Buffer;
  readonly #sections: readonly SectionHeader[];
  readonly #sectionOf: (symbol: number) => number | null;
  readonly #path: string;

  /** @param header of `.symtab`, which has strings @throws ExtractError `corrupt-elf`, `truncated` */
  constructor(image: ElfImage, header: SectionHeader, path: string) {
    const symtab = openSection(image, header);
    const strtab = openSection(image, image.headers[header.link]!);
    for (const { name, size } of [symtab, strtab]) {
      if (size > MAX_TABLE) {
        throw new ExtractError(
          'corrupt-elf',
          `${path} is damaged: ${name} of ${size} bytes is beyond any kernel's; fetch or copy it again`,
          { path, section: name, size },
        );
      }
    }
    const whole = symtab.size - (symtab.size % SYMBOL.size);
    this.#symbols = asBuffer(symtab.read(0, whole));
    this.#strings = asBuffer(strtab.read());
    this.#sections = image.headers;
    this.#sectionOf = sectionIndexes(image, header, this.#symbols);
    this.#path = path;
  }

  *all(): Generator<KernelSymbol> {
    for (let at = 0; at < this.#symbols.length; at += SYMBOL.size) {
      if (!this.#defined(at)) continue;
      const name = this.#name(this.#symbols.readUInt32LE(at));
      if (name !== '') yield this.#symbol(at, name);
    }
  }

  *named(names: Iterable<string>): Generator<KernelSymbol> {
    const matcher = new NameMatcher(names);
    for (const at of this.#candidates(matcher)) {
      const name = matcher.match(this.#strings, this.#symbols.readUInt32LE(at));
      if (name !== null && this.#defined(at)) yield this.#symbol(at, name);
    }
  }

  /** Positions of symbols whose names may be wanted. A plain loop over bytes: nine in ten symbols end here. */
  #candidates(matcher: NameMatcher): number[] {
    const symbols = this.#symbols;
    const strings = this.#strings;
    const found: number[] = [];
    for (let at = 0; at < symbols.length; at += SYMBOL.size) {
      const start =
        symbols[at]! + symbols[at + 1]! * 0x100 + symbols[at + 2]! * 0x1_0000 + symbols[at + 3]! * 0x100_0000;
      if (matcher.mayStart(strings, start)) found.push(at);
    }
    return found;
  }

  #defined(at: number): boolean {
    const type = this.#symbols[at + 4]! & 0xf;
    return (
      this.#symbols.readUInt16LE(at + SYMBOL.section) !== SHN_UNDEF &&
      type !== STT_SECTION &&
      type !== STT_FILE
    );
  }

  #symbol(at: number, name: string): KernelSymbol {
    const section = this.#sectionOf(at / SYMBOL.size);
    return {
      name,
      address: this.#symbols.readBigUInt64LE(at + SYMBOL.value),
      size: this.#symbols.readBigUInt64LE(at + 16),
      local: this.#symbols[at + 4]! >> 4 === STB_LOCAL,
      section: section === null ? null : (this.#sections[section]?.name ?? null),
    };
  }

  #name(offset: number): string {
    const room = this.#strings.subarray(offset, offset + MAX_NAME);
    const length = room.indexOf(0);
    if (length < 0) {
      throw new ExtractError(
        'corrupt-elf',
        `${this.#path} is damaged: a symbol's name at ${offset} does not end; fetch or copy it again`,
        { path: this.#path, offset },
      );
    }
    return room.toString('utf8', 0, length);
  }
}

/**
 * The section of each symbol in the table: null for an undefined, absolute or common one.
 * @param header of the table whose bytes are `symbols`
 */
export function sectionIndexes(
  image: ElfImage,
  header: SectionHeader,
  symbols: Buffer,
): (symbol: number) => number | null {
  // Only files with at least 65,280 sections have one, so look for it on demand.
  let wide: Buffer | null | undefined;
  const wideIndex = (symbol: number): number | null => {
    if (wide === undefined) {
      const home = image.headers.find(({ type, link }) => type === 'symtab_shndx' && link === header.index);
      wide = home ? asBuffer(openSection(image, home).read()) : null;
    }
    return wide && symbol * 4 + 4 <= wide.length ? wide.readUInt32LE(symbol * 4) : null;
  };
  return (symbol) => {
    const index = symbols.readUInt16LE(symbol * SYMBOL.size + SYMBOL.section);
    if (index === SHN_XINDEX) return wideIndex(symbol);
    return index === SHN_UNDEF || index >= SHN_LORESERVE ? null : index;
  };
}
