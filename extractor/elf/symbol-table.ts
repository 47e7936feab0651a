import { ExtractError } from '../error.ts';
import type { SectionHeader } from './image.ts';
import type { KernelSymbol, SectionData } from './kernel-file.ts';

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
export class SymbolTable {
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

  /** Every defined symbol, in file order. */
  *all(): Generator<KernelSymbol> {
    for (let at = 0; at < this.#symbols.length; at += SYMBOL_SIZE) {
      if (!this.#defined(at)) continue;
      const name = this.#name(this.#symbols.readUInt32LE(at));
      if (name !== '') yield this.#symbol(at, name);
    }
  }

  /** All symbols with one of `names`. Compares bytes in place: no string is made for the others. */
  *named(names: Iterable<string>): Generator<KernelSymbol> {
    const strings = this.#strings;
    // Wanted names by a hash of their first bytes (terminator included, zeroes after it).
    const byHash = new Map<number, { name: string; bytes: Buffer }[]>();
    const maybe = new Uint8Array(1 << 16);
    for (const name of names) {
      if (name === '' || name.includes('\0')) continue;
      const bytes = Buffer.from(`${name}\0`, 'utf8');
      const hash = firstBytes(bytes, 0);
      maybe[hash] = 1;
      const list = byHash.get(hash);
      if (list) list.push({ name, bytes });
      else byHash.set(hash, [{ name, bytes }]);
    }
    for (let at = 0; at < this.#symbols.length; at += SYMBOL_SIZE) {
      const offset = this.#symbols.readUInt32LE(at);
      const hash = firstBytes(strings, offset);
      if (maybe[hash] === 0) continue;
      for (const { name, bytes } of byHash.get(hash)!) {
        const end = offset + bytes.length;
        if (end > strings.length || strings.compare(bytes, 0, bytes.length, offset, end) !== 0) continue;
        if (this.#defined(at)) yield this.#symbol(at, name);
      }
    }
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

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** 16 bits of the first four bytes at `offset`, the same for equal names whatever follows the terminator. */
function firstBytes(bytes: Buffer, offset: number): number {
  let hash = 0;
  for (let index = 0; index < 4; index++) {
    const byte = bytes[offset + index] ?? 0;
    if (byte === 0) break;
    hash = (hash * 31 + byte) & 0xffff;
  }
  return hash;
}
