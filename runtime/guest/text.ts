/** Control and format characters, what turns the direction of writing, unusual blanks, halves of pairs. */
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
/** Where a decoder puts a byte that is none of UTF-8's, as Python's surrogateescape does. */
const STRAY = 0xdc00;

/**
 * A name out of a guest, spelt for a terminal: of its bytes, those that are no printable ASCII become `\xHH`, so that
 * no name can move the cursor, change colours or turn the direction of writing. No two names are spelt alike:
 * {@link plainName} gives the name back.
 * @param latin1 the bytes, a character each
 */
export function printableBytes(latin1: string): string {
  return latin1.replace(/[^\x20-\x7e]|\\/g, (character) =>
    character === '\\' ? '\\\\' : hex(character.charCodeAt(0)),
  );
}

/** As {@link printableBytes}, for text: its bytes are those of UTF-8. */
export function printable(text: string): string {
  return printableBytes(bytesOf(text).toString('latin1'));
}

/**
 * The name that {@link printableBytes} spelt, as UTF-8 reads it. A byte that is none of UTF-8's becomes half a
 * surrogate pair, U+DC80 to U+DCFF, which JSON writes as an escape: such names stay apart.
 */
export function plainName(spelt: string): string {
  if (!spelt.includes('\\')) return spelt;
  const latin1 = spelt.replace(/\\(?:\\|x([0-9a-f]{2}))/g, (_, digits?: string) =>
    digits === undefined ? '\\' : String.fromCharCode(Number.parseInt(digits, 16)),
  );
  return decode(Buffer.from(latin1, 'latin1'));
}

/**
 * A pattern with `\xHH` in it, as tables spell names, with the characters themselves. Other backslashes stay: they
 * make a `*` or a backslash one that stands for itself.
 */
export function plainPattern(pattern: string): string {
  return pattern.replace(/(\\\\)|(?:\\x[0-9a-f]{2})+/g, (part, backslash?: string) =>
    backslash === undefined ? plainName(part).replaceAll(/[*\\]/g, '\\$&') : backslash,
  );
}

/**
 * A text of ours with names in it, on its way to a terminal: nothing in it makes the terminal do anything, or begins a
 * line of its own.
 */
export function harmless(text: string): string {
  return text.replace(UNSAFE, (character) => printable(character));
}

/** JSON for a terminal or a file: names are as they are, but for what {@link harmless} would spell, as `\uXXXX`. */
export function jsonText(value: unknown): string {
  const text = JSON.stringify(value, null, 2).replace(UNSAFE, (character) =>
    // Line feeds are ours: those of names are escaped already.
    character === '\n'
      ? character
      : [...Array(character.length).keys()]
          .map((i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`)
          .join(''),
  );
  return `${text}\n`;
}

/** Whether a name of ours, as of a domain, was meant: as it is, or as terminals show it. */
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

/** Bytes of the character that begins here; 0 where none does. */
function characterLength(bytes: Buffer, at: number): number {
  const first = bytes[at]!;
  const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  const part = bytes.subarray(at, at + length);
  // Overlong forms, halves of pairs and cut characters decode to something that is written in other bytes.
  return part.equals(Buffer.from(part.toString('utf8'), 'utf8')) ? length : 0;
}

function hex(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, '0')}`;
}
