import { ExtractError } from '../error.ts';
import { asBuffer } from './byte-source.ts';
import type { SectionHeader } from './image.ts';
import type { KernelSymbol, SectionData } from './kernel-file.ts';
import { NameMatcher } from './name-matcher.ts';
import type { SymbolSource } from './symbol-source.ts';

/** Size of an Elf64_Sym. */
const SYMBOL_SIZE = 24;
const STB_LOCAL = 0;
const SHN_UNDEF = 0;
const SHN_LORESERVE = 0xff00;
/** STT_SECTION and STT_FILE name no object of the kernel. */
const STT_SECTION = 3;
const STT_FILE = 4;

/** A distribution's kernel has about 4 MiB of each; a table beyond this is not read. */
const MAX_TABLE = 256 << 20;
/** Longest symbol name believed; KSYM_NAME_LEN of the kernel is 512. */
const MAX_NAME = 4096;

/** `.symtab` with its strings, read once; names are decoded only for symbols asked for. */
export class SymbolTable implements SymbolSource {
  readonly #symbols: Buffer;
  readonly #strings: Buffer;
  readonly #sections: readonly SectionHeader[];
  readonly #path: string;

  /** @throws ExtractError `corrupt-elf`, `truncated` */
  constructor(symtab: SectionData, strtab: SectionData, sections: readonly SectionHeader[], path: string) {
    for (const { name, size } of [symtab, strtab]) {
      if (size > MAX_TABLE) {
        throw new ExtractError(
          'corrupt-elf',
          `${path} is damaged: ${name} of ${size} bytes is beyond any kernel's; fetch or copy it again`,
          { path, section: name, size },
        );
      }
    }
    const whole = symtab.size - (symtab.size % SYMBOL_SIZE);
    this.#symbols = asBuffer(symtab.read(0, whole));
    this.#strings = asBuffer(strtab.read());
    this.#sections = sections;
    this.#path = path;
  }

  *all(): Generator<KernelSymbol> {
    for (let at = 0; at < this.#symbols.length; at += SYMBOL_SIZE) {
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

  /** Where symbols stand whose names may be wanted. A plain loop over bytes: nine in ten symbols end here. */
  #candidates(matcher: NameMatcher): number[] {
    const symbols = this.#symbols;
    const strings = this.#strings;
    const found: number[] = [];
    for (let at = 0; at < symbols.length; at += SYMBOL_SIZE) {
      const start =
        symbols[at]! + symbols[at + 1]! * 0x100 + symbols[at + 2]! * 0x1_0000 + symbols[at + 3]! * 0x100_0000;
      if (matcher.mayStart(strings, start)) found.push(at);
    }
    return found;
  }

  #defined(at: number): boolean {
    const type = this.#symbols[at + 4]! & 0xf;
    return this.#symbols.readUInt16LE(at + 6) !== SHN_UNDEF && type !== STT_SECTION && type !== STT_FILE;
  }

  #symbol(at: number, name: string): KernelSymbol {
    const shndx = this.#symbols.readUInt16LE(at + 6);
    return {
      name,
      address: this.#symbols.readBigUInt64LE(at + 8),
      size: this.#symbols.readBigUInt64LE(at + 16),
      local: this.#symbols[at + 4]! >> 4 === STB_LOCAL,
      section: shndx < SHN_LORESERVE ? (this.#sections[shndx]?.name ?? null) : null,
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
