/** Control and format characters (some turn the direction of writing), unusual blanks, and lone surrogates. */
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
/** What is spelt as it is: printable ASCII without a backslash. */
const PLAIN = /^[\x20-\x5b\x5d-\x7e]*$/;
/** A decoder maps bytes that are not UTF-8 to here, as Python's surrogateescape does. */
const STRAY = 0xdc00;

/**
 * Spells a guest's name for a terminal: bytes that are not printable ASCII become `\xHH`, so no name can move the
 * cursor, change colours or turn the direction of writing. No two names are spelt alike, and {@link plainName} gives
 * the name back.
 * @param latin1 the bytes, one per character
 */
export function printableBytes(latin1: string): string {
  if (PLAIN.test(latin1)) return latin1;
  return latin1.replace(/[^\x20-\x7e]|\\/g, (character) =>
    character === '\\' ? '\\\\' : hex(character.charCodeAt(0)),
  );
}

/** As {@link printableBytes}, for text, whose bytes are UTF-8. */
export function printable(text: string): string {
  if (PLAIN.test(text)) return text;
  return printableBytes(bytesOf(text).toString('latin1'));
}

/**
 * Reverses {@link printableBytes}, reading the bytes as UTF-8. A byte that is not UTF-8 becomes half a surrogate pair,
 * U+DC80 to U+DCFF, which JSON writes as an escape, so such names stay distinct.
 */
export function plainName(spelt: string): string {
  if (!spelt.includes('\\')) return spelt;
  const latin1 = spelt.replace(/\\(?:\\|x([0-9a-f]{2}))/g, (_, digits?: string) =>
    digits === undefined ? '\\' : String.fromCharCode(Number.parseInt(digits, 16)),
  );
  return decode(Buffer.from(latin1, 'latin1'));
}

/**
 * Replaces each `\xHH` of a pattern, as tables spell names, by the character itself. Other backslashes stay: they make
 * a `*` or a backslash stand for itself.
 */
export function plainPattern(pattern: string): string {
  return pattern.replace(/(\\\\)|(?:\\x[0-9a-f]{2})+/g, (part, backslash?: string) =>
    backslash === undefined ? plainName(part).replaceAll(/[*\\]/g, '\\$&') : backslash,
  );
}

/**
 * Makes a text of ours that contains names safe for a terminal: nothing in it can control the terminal or begin a line
 * of its own.
 */
export function harmless(text: string): string {
  return text.replace(UNSAFE, (character) => printable(character));
}

/** JSON for a terminal or a file. Names stay as they are, but what {@link harmless} would spell becomes `\uXXXX`. */
export function jsonText(value: unknown): string {
  // These line feeds are ours; those of names are escaped already.
  return `${JSON.stringify(value, null, 2).split('\n').map(escaped).join('\n')}\n`;
}

/** As {@link jsonText}, on one line. */
export function jsonLine(value: unknown): string {
  return `${escaped(JSON.stringify(value))}\n`;
}

function escaped(json: string): string {
  return json.replace(UNSAFE, (character) =>
    [...Array(character.length).keys()]
      .map((i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

/** Whether `typed` means a name, such as a domain's: as it is, or as terminals show it. */
export function isNamed(name: string, typed: string): boolean {
  return name === typed || (typed.includes('\\') && printable(name) === typed);
}

function bytesOf(text: string): Buffer {
  const parts = text
    .split(/([\udc80-\udcff])/u)
    .map((part, i) => (i % 2 === 0 ? Buffer.from(part, 'utf8') : stray(part)));
  return Buffer.concat(parts);
}

function stray(half: string): Buffer {
  return Buffer.from([half.charCodeAt(0) - STRAY]);
}

function decode(bytes: Buffer): string {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const length = characterLength(bytes, at);
    text += length === 0 ? String.fromCharCode(STRAY + bytes[at]!) : bytes.toString('utf8', at, at + length);
    at += length || 1;
  }
  return text;
}

/** Length in bytes of the character that begins here; 0 if none does. */
function characterLength(bytes: Buffer, at: number): number {
  const first = bytes[at]!;
  const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  const part = bytes.subarray(at, at + length);
  // Overlong forms, lone surrogates and cut characters do not encode back to the same bytes.
  return part.equals(Buffer.from(part.toString('utf8'), 'utf8')) ? length : 0;
}

function hex(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, '0')}`;
}
