import type { KernelSymbol } from '../elf/kernel-file.ts';
import { NameMatcher } from '../elf/name-matcher.ts';
import type { SymbolSource } from '../elf/symbol-source.ts';
import { type AddressTable, addressOf, addressTables, isSorted } from './addresses.ts';
import { type NameTable, nameLength, nameTables } from './names.ts';
import { type TokenTable, tokenTables } from './token-table.ts';

/** Longer strings are no symbol names (KSYM_NAME_LEN is 512), but tokens of a damaged table may form them. */
const MAX_NAME = 1024;
/** Candidates of names and addresses that are tried in all: a kernel has one, plus a few by chance. */
const MAX_TRIES = 64;
/** Steps of the search for names in all: some 0.5 s. A real kernel takes a tenth of that. */
const MAX_STEPS = 40_000_000;
const PROOF = 'linux_banner';
const PROOF_BYTES = Buffer.from('Linux version ', 'latin1');

export interface KallsymsPlaces {
  readonly tables: readonly { readonly start: number; readonly end: number }[];
  /** Position of the word to which a randomized kernel's slide was added; null if there is none. */
  readonly baseAt: number | null;
}

/** Reads a kernel's bytes at an address; null if it has none. */
export type ReadAt = (address: bigint, length: number) => Uint8Array | null;

/** The symbols that a kernel carries for itself (kernel/kallsyms.c): without modules, in order of address. */
export class Kallsyms implements SymbolSource {
  readonly #bytes: Buffer;
  readonly #tokens: readonly Buffer[];
  readonly #tokensEnd: number;
  readonly #names: NameTable;
  readonly #addresses: AddressTable;

  /** @internal See {@link findKallsyms}. */
  constructor(bytes: Buffer, tokens: TokenTable, names: NameTable, addresses: AddressTable) {
    this.#bytes = bytes;
    this.#tokens = tokens.tokens;
    this.#tokensEnd = tokens.end;
    this.#names = names;
    this.#addresses = addresses;
  }

  get count(): number {
    return this.#names.count;
  }

  get encoding(): AddressTable['encoding'] {
    return this.#addresses.encoding;
  }

  /** Positions of everything read, in bytes from the start of the searched data. */
  get places(): KallsymsPlaces {
    const { start, encoding, baseAt } = this.#addresses;
    const size = (encoding === 'absolute' ? 8 : 4) * this.count;
    return {
      tables: [
        { start, end: start + size },
        { start: this.#names.countAt, end: this.#tokensEnd },
      ],
      baseAt: baseAt ?? null,
    };
  }

  *all(): Generator<KernelSymbol> {
    for (const { index, name, end } of decoded(this.#bytes, this.#tokens, this.#names)) {
      yield this.#symbol(index, name[0]!, name.toString('latin1', 1, end));
    }
  }

  *named(names: Iterable<string>): Generator<KernelSymbol> {
    const matcher = new NameMatcher(names);
    for (const { index, name } of decoded(this.#bytes, this.#tokens, this.#names)) {
      const found = matcher.match(name, 1);
      if (found !== null) yield this.#symbol(index, name[0]!, found);
    }
  }

  #symbol(index: number, letter: number, name: string): KernelSymbol {
    return {
      name,
      address: addressOf(this.#bytes, this.#addresses, index),
      size: 0n,
      // nm(1): lower case is local, except for weak symbols without (w, v) and unique ones (u).
      local: letter >= 0x61 && !'wvu'.includes(String.fromCharCode(letter)),
      section: null,
    };
  }
}

/**
 * Finds and proves the tables in a kernel's read-only data, without knowing its version: tokens are proved by their
 * index, names by their markers, and addresses by being ascending and by placing `linux_banner` where the banner is.
 *
 * @param bytes all of the data that contains the tables
 * @param address of its first byte
 * @param readAt reads the whole image, because the banner may be elsewhere
 * @returns null if the kernel has none, or has no data among its symbols (built without KALLSYMS_ALL)
 */
export function findKallsyms(bytes: Buffer, address: bigint, readAt: ReadAt): Kallsyms | null {
  const budget = { left: MAX_STEPS };
  let tries = 0;
  for (const tokens of tokenTables(bytes)) {
    if (budget.left <= 0) return null;
    for (const names of nameTables(bytes, tokens.start, budget)) {
      let banners: readonly number[] | undefined;
      for (const addresses of addressTables(bytes, address, names, tokens.end)) {
        if (++tries > MAX_TRIES) return null;
        if (!isSorted(bytes, addresses, names.count)) continue;
        banners ??= indexesOf(PROOF, bytes, tokens, names);
        if (banners.some((index) => isBanner(addressOf(bytes, addresses, index), readAt))) {
          return new Kallsyms(bytes, tokens, names, addresses);
        }
      }
    }
  }
  return null;
}

/** Indexes of a name among the symbols: found once for all candidate tables of addresses. */
function indexesOf(wanted: string, bytes: Buffer, { tokens }: TokenTable, names: NameTable): number[] {
  const matcher = new NameMatcher([wanted]);
  const indexes: number[] = [];
  for (const { index, name } of decoded(bytes, tokens, names)) {
    if (matcher.match(name, 1) !== null) indexes.push(index);
  }
  return indexes;
}

function isBanner(address: bigint, readAt: ReadAt): boolean {
  const found = readAt(address, PROOF_BYTES.length);
  return found !== null && PROOF_BYTES.equals(found);
}

/** Each symbol's type letter and name, ended by a NUL, in a buffer that the next one reuses. */
function* decoded(
  bytes: Buffer,
  tokens: readonly Buffer[],
  names: NameTable,
): Generator<{ index: number; name: Buffer; end: number }> {
  const name = Buffer.alloc(MAX_NAME + 1);
  let at = names.start;
  for (let index = 0; index < names.count; index++) {
    const length = nameLength(bytes, at);
    at += length.bytes;
    let end = 0;
    for (const next = at + length.tokens; at < next; at++) {
      const token = tokens[bytes[at]!]!;
      if (end + token.length > MAX_NAME) continue;
      for (let byte = 0; byte < token.length; byte++) name[end++] = token[byte]!;
    }
    name[end] = 0;
    yield { index, name, end };
  }
}
