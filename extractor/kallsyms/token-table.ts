/** A kernel's names are spelled in 256 tokens, one per byte value (scripts/kallsyms.c). */
const TOKENS = 256;
/** Characters that occur in names are tokens of their own value, and every kernel's names contain all digits. */
const ANCHOR = Buffer.from('0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0', 'latin1');
const FIRST_DIGIT = 0x30;
/** Tables begin at a multiple of 8, so padding between two is shorter than this. */
const MAX_PADDING = 8;
/** Bytes of tokens: the index stores each token's start in 16 bits. */
const MAX_TABLE = 0x1_0000;
/** Places tried: the anchor alone may occur in some text. */
const MAX_TRIES = 256;

/** `kallsyms_token_table` and `kallsyms_token_index`, in bytes from the start of the searched data. */
export interface TokenTable {
  readonly start: number;
  /** End of the index. */
  readonly end: number;
  readonly tokens: readonly Buffer[];
}

/**
 * Finds tables of tokens in a kernel's read-only data. The index of token starts is computed and compared with the 512
 * bytes after the tokens; this proves the table and shows where it begins.
 */
export function* tokenTables(bytes: Buffer): Generator<TokenTable> {
  let at = bytes.indexOf(ANCHOR);
  for (let tries = 0; at >= 0 && tries < MAX_TRIES; tries++) {
    const found = tableAround(bytes, at);
    if (found) yield found;
    at = bytes.indexOf(ANCHOR, at + 1);
  }
}

/** @param digit position of token 0x30 */
function tableAround(bytes: Buffer, digit: number): TokenTable | null {
  const room = bytes.subarray(digit, digit + MAX_TABLE);
  let length = 0;
  for (let token = FIRST_DIGIT; token < TOKENS; token++) {
    length = room.indexOf(0, length) + 1;
    if (length === 0) return null;
  }
  const tokensEnd = digit + length;
  for (let index = tokensEnd; index <= tokensEnd + MAX_PADDING; index++) {
    const end = index + 2 * TOKENS;
    if (end > bytes.length) return null;
    const start = digit - bytes.readUInt16LE(index + 2 * FIRST_DIGIT);
    const tokens = start < 0 ? null : provedTokens(bytes, start, index);
    if (tokens) return { start, end, tokens };
  }
  return null;
}

/** The tokens from `start` on, if the index at `index` gives the start of each. */
function provedTokens(bytes: Buffer, start: number, index: number): Buffer[] | null {
  const tokens: Buffer[] = [];
  for (let token = 0, at = start; token < TOKENS; token++) {
    if (bytes.readUInt16LE(index + 2 * token) !== at - start) return null;
    const end = bytes.indexOf(0, at);
    if (end < 0) return null;
    tokens.push(bytes.subarray(at, end));
    at = end + 1;
  }
  return tokens;
}
