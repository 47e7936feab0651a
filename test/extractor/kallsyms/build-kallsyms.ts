/** Builds kallsyms tables in code, from scripts/kallsyms.c of the kernels that write them. */

export interface BuildSymbolLine {
  /** Type letter and name. */
  text: string;
  address: bigint;
}

export interface TableFormat {
  /** Up to 6.3 addresses come before the names, later behind the tokens. */
  order: 'before' | 'behind';
  encoding: 'absolute' | 'percpu' | 'base' | 'place';
  /** Three bytes for each symbol between markers and tokens. */
  sequences?: boolean;
  /** Bytes from the number of symbols to the names. */
  countRoom: 4 | 8;
  /** Bytes of what stands before the tokens that a reader may take for one of them. */
  stray?: string;
}

/** By the releases that write them. */
export const FORMATS: Readonly<Record<string, TableFormat>> = {
  '4.x without KALLSYMS_BASE_RELATIVE': { order: 'before', encoding: 'absolute', countRoom: 8 },
  '5.10': { order: 'before', encoding: 'percpu', countRoom: 8 },
  '6.2': { order: 'before', encoding: 'percpu', countRoom: 8, sequences: true },
  '6.4 to 6.14': { order: 'behind', encoding: 'percpu', countRoom: 8 },
  '6.15 to 6.19': { order: 'behind', encoding: 'base', countRoom: 8 },
  '7.0': { order: 'behind', encoding: 'place', countRoom: 4 },
};

/** Tokens of more than one character, at numbers that no character has. */
const LONG: Readonly<Record<number, string>> = {
  0: 'Tsys',
  1: 'd__',
  2: '_set',
  200: 'a_token_of_more_than_forty_characters_as_of_Rust',
};

/**
 * The tables as bytes, for `address`.
 * @param symbols in order of their addresses
 */
export function buildKallsyms(
  symbols: readonly BuildSymbolLine[],
  format: TableFormat,
  address: bigint,
): Buffer {
  const used = new Set(symbols.flatMap(({ text }) => [...text].map((letter) => letter.charCodeAt(0))));
  for (let digit = 0x30; digit <= 0x39; digit++) used.add(digit);
  const tokens = Array.from({ length: 256 }, (_, number) =>
    used.has(number) ? String.fromCharCode(number) : (LONG[number] ?? ''),
  );
  const out = new Pieces();
  const base = 0xffffffff81000000n;
  const addresses = () => {
    out.align(8);
    if (format.encoding === 'absolute') {
      for (const symbol of symbols) out.u64(symbol.address);
      return;
    }
    for (const symbol of symbols) {
      if (format.encoding === 'place') out.u32(Number(symbol.address - address - BigInt(out.size)));
      else if (format.encoding === 'base') out.u32(Number(symbol.address - base));
      else if (symbol.address < 2n ** 31n) out.u32(Number(symbol.address));
      else out.u32(Number(base - 1n - symbol.address));
    }
    out.align(8);
    if (format.encoding !== 'place') out.u64(base);
  };

  if (format.order === 'before') addresses();
  out.align(8);
  out.u32(symbols.length);
  if (format.countRoom === 8) out.align(8);
  const markers: number[] = [];
  const start = out.size;
  for (const [index, { text }] of symbols.entries()) {
    if (index % 256 === 0) markers.push(out.size - start);
    const name = spell(text, tokens);
    if (name.length > 0x7f) out.bytes(Buffer.from([(name.length & 0x7f) | 0x80, name.length >> 7]));
    else out.bytes(Buffer.from([name.length]));
    out.bytes(Buffer.from(name));
  }
  out.align(format.countRoom);
  for (const marker of markers) out.u32(marker);
  if (format.sequences) {
    out.align(8);
    for (let index = 0; index < symbols.length; index++) out.bytes(Buffer.from([0, index >> 8, index & 255]));
  }
  out.align(8);
  out.bytes(Buffer.from(format.stray ?? '', 'latin1'));
  const index = Buffer.alloc(512);
  const table = out.size;
  for (const [number, token] of tokens.entries()) {
    index.writeUInt16LE(out.size - table, 2 * number);
    out.bytes(Buffer.from(`${token}\0`, 'latin1'));
  }
  out.align(8);
  out.bytes(index);
  if (format.order === 'behind') addresses();
  return out.result();
}

/** The longest tokens first, as any choice of tokens spells the same name. */
function spell(text: string, tokens: readonly string[]): number[] {
  const spelled: number[] = [];
  const long = Object.entries(LONG).filter(([number, token]) => tokens[Number(number)] === token);
  for (let at = 0; at < text.length; ) {
    const found = long.find(([, token]) => text.startsWith(token, at));
    spelled.push(found ? Number(found[0]) : text.charCodeAt(at));
    at += found ? found[1].length : 1;
  }
  return spelled;
}

class Pieces {
  readonly #pieces: Buffer[] = [];
  size = 0;

  bytes(piece: Buffer): void {
    this.#pieces.push(piece);
    this.size += piece.length;
  }

  u32(value: number): void {
    const piece = Buffer.alloc(4);
    piece.writeInt32LE(value | 0);
    this.bytes(piece);
  }

  u64(value: bigint): void {
    const piece = Buffer.alloc(8);
    piece.writeBigUInt64LE(value);
    this.bytes(piece);
  }

  align(to: number): void {
    this.bytes(Buffer.alloc((to - (this.size % to)) % to));
  }

  result(): Buffer {
    return Buffer.concat(this.#pieces);
  }
}

/**
 * A kernel's worth of symbols: per-CPU ones at 0 where the format has them there, functions, `linux_banner` at `banner`.
 * @param count at least 1024, as fewer than four markers prove nothing
 */
export function manySymbols(count: number, banner: bigint, encoding: TableFormat['encoding']) {
  const low = encoding === 'percpu' || encoding === 'absolute';
  const symbols: BuildSymbolLine[] = [
    { text: 'D__per_cpu_start', address: low ? 0n : 0xffffffff81000000n },
    { text: 'Drunqueues', address: low ? 0x35ec0n : 0xffffffff81000010n },
    { text: 'T_text', address: 0xffffffff81000020n },
    { text: `t${'long_name_'.repeat(20)}`, address: 0xffffffff81000020n },
    { text: 'tthrice', address: 0xffffffff81000030n },
    { text: 'tthrice', address: 0xffffffff81000040n },
    { text: 'Wweak', address: 0xffffffff81000040n },
    { text: 'bRa_token_of_more_than_forty_characters_as_of_Rust', address: 0xffffffff81000048n },
  ];
  for (let index = 0; symbols.length < count - 2; index++) {
    symbols.push({ text: `Tsys_set${index}`, address: 0xffffffff81000050n + BigInt(16 * index) });
  }
  symbols.push({ text: 'Dlinux_banner', address: banner }, { text: 'B_end', address: banner + 0x1000n });
  return symbols;
}
