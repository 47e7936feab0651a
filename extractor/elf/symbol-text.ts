import { ExtractError } from '../error.ts';
import { FileSource } from './byte-source.ts';
import type { KernelSymbol } from './kernel-file.ts';
import { NameMatcher } from './name-matcher.ts';
import type { SymbolSource } from './symbol-source.ts';

/** A System.map has 3 to 8 MiB, a kallsyms with many modules about twice that. */
const MAX_TEXT = 128 << 20;
const ADDRESS_DIGITS = 16;
/** `ffffffff81000000 T ` */
const NAME_AT = ADDRESS_DIGITS + 3;
/** Lowest address of the kernel image (Documentation/arch/x86/x86_64/mm.rst); per-CPU symbols may lie at 0. */
export const KERNEL_IMAGE = 0xffff_ffff_8000_0000n;
/** Link address of `_text`, unless CONFIG_PHYSICAL_START was changed. */
const USUAL_TEXT = KERNEL_IMAGE + 0x100_0000n;
const NEWLINE = 0x0a;
const TAB = 0x09;
const SPACE = 0x20;
const DIGIT_0 = 0x30;

/**
 * Symbols of a System.map or a saved `/proc/kallsyms`: lines of address, type letter as in nm(1), name. Symbols of
 * modules (`[name]` at the end of a line) are left out.
 */
export class SymbolText implements SymbolSource {
  readonly #text: Buffer;
  /** What a randomized kernel's kallsyms adds to link-time addresses. */
  readonly #slide: bigint;

  private constructor(text: Buffer, slide: bigint) {
    this.#text = text;
    this.#slide = slide;
  }

  /**
   * Reads a file of symbols.
   * @param textStart link-time address of `.text` (`_text`), if the image or its configuration tells it: addresses of a
   *   running, randomized kernel are converted with it
   * @returns null for Debian's System.map, which only names the package of the real one
   * @throws ExtractError `file-not-found`, `file-unreadable`, `no-debug-information`
   */
  static read(path: string, textStart: bigint | null): SymbolText | null {
    using source = FileSource.open(path);
    if (source.size > MAX_TEXT) throw unusable(path, `it has ${source.size} bytes`);
    const text = readAll(source);
    const plain = new SymbolText(text, 0n);
    if (/^f{16} B The real System\.map is in /.test(text.toString('latin1', 0, 64))) return null;
    let any = false;
    for (const at of plain.#lines()) {
      any = true;
      // Readers without permission see only zeros in /proc/kallsyms; a real one soon has other addresses.
      if (plain.#address(at) >= KERNEL_IMAGE) return new SymbolText(text, plain.#slideTo(textStart, path));
    }
    throw unusable(
      path,
      any ? 'its addresses are hidden (read /proc/kallsyms as root)' : 'it lists no symbols',
    );
  }

  *all(): Generator<KernelSymbol> {
    for (const at of this.#lines()) {
      let end = at + NAME_AT;
      while ((this.#text[end] ?? 0) > SPACE) end++;
      yield this.#symbol(at, this.#text.toString('utf8', at + NAME_AT, end));
    }
  }

  *named(names: Iterable<string>): Generator<KernelSymbol> {
    const matcher = new NameMatcher(names);
    for (const at of this.#lines()) {
      const name = matcher.match(this.#text, at + NAME_AT);
      if (name !== null) yield this.#symbol(at, name);
    }
  }

  /** Starts of the lines with symbols of the kernel itself. */
  *#lines(): Generator<number> {
    const text = this.#text;
    for (let at = 0; at < text.length; ) {
      const newline = text.indexOf(NEWLINE, at);
      const end = newline < 0 ? text.length : newline;
      const wellFormed =
        end > at + NAME_AT && text[at + ADDRESS_DIGITS] === SPACE && text[at + ADDRESS_DIGITS + 2] === SPACE;
      const ofModule = end > at && text[end - 1] === 0x5d && text.subarray(at, end).includes(TAB);
      if (wellFormed && !ofModule && isHexadecimal(text, at)) yield at;
      at = end + 1;
    }
  }

  #address(at: number): bigint {
    return BigInt(`0x${this.#text.toString('latin1', at, at + ADDRESS_DIGITS)}`);
  }

  #symbol(at: number, name: string): KernelSymbol {
    const address = this.#address(at);
    const letter = this.#text[at + ADDRESS_DIGITS + 1]!;
    return {
      name,
      address: address >= KERNEL_IMAGE ? address - this.#slide : address,
      size: 0n,
      // nm(1): lower case is local, except for weak symbols without (w, v) and unique ones (u).
      local: letter >= 0x61 && !'wvu'.includes(String.fromCharCode(letter)),
      section: null,
    };
  }

  /** @throws ExtractError `no-debug-information` for moved addresses of unknown origin */
  #slideTo(textStart: bigint | null, path: string): bigint {
    const text = [...this.named(['_text'])].find(({ name }) => name === '_text')?.address;
    if (text === undefined || text === (textStart ?? USUAL_TEXT)) return 0n;
    if (textStart !== null) return text - textStart;
    throw unusable(
      path,
      `its _text is 0x${text.toString(16)}, as of a running, randomized kernel, and the image does not say where it ` +
        "was linked to; add --config with the kernel's configuration",
    );
  }
}

/** /proc files report size 0, so read until the end. */
function readAll(source: FileSource): Buffer {
  if (source.size > 0) return source.read(0, source.size);
  return source.readToEnd(MAX_TEXT);
}

function isHexadecimal(text: Buffer, at: number): boolean {
  for (let index = at; index < at + ADDRESS_DIGITS; index++) {
    const byte = text[index]!;
    const digit = byte - DIGIT_0;
    const letter = (byte | 0x20) - 0x61;
    if ((digit < 0 || digit > 9) && (letter < 0 || letter > 5)) return false;
  }
  return true;
}

function unusable(path: string, why: string): ExtractError {
  return new ExtractError(
    'no-debug-information',
    `${path} gives no kernel addresses: ${why}; take the System.map of the build or the guest's /proc/kallsyms`,
    { path, why },
  );
}
