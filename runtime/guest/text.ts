/**
 * A name out of a guest, made safe for a terminal: control characters, and everything that is not printable ASCII,
 * become `\xHH`, so that no name can move the cursor, change colours or turn the direction of writing.
 */
export function printable(raw: string): string {
  return raw.replace(/[^\x20-\x7e]|\\/g, (character) =>
    character === '\\' ? '\\\\' : `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
