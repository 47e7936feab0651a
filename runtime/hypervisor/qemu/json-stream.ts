const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;

/** Assembles JSON objects from lines; with `-qmp-pretty` one object spans many. */
export class JsonStream {
  readonly #maxLength: number;
  #begun: string[] = [];
  #length = 0;
  #depth = 0;

  /** @param maxLength most characters of an object; no valid one is longer */
  constructor(maxLength: number) {
    this.#maxLength = maxLength;
  }

  /** @returns what is now complete; text that is no object, or one that gets too long, is passed on unchanged */
  add(line: string): string[] {
    const complete: string[] = [];
    let start = 0;
    // Strings do not span lines, so each line begins outside of one.
    for (let at = 0; at < line.length; at++) {
      const code = line.charCodeAt(at);
      if (code === QUOTE) at = endOfString(line, at);
      else if (code === OPEN) this.#depth += 1;
      else if (code === CLOSE && this.#depth > 0 && --this.#depth === 0) {
        complete.push(this.#take(line.slice(start, at + 1)));
        start = at + 1;
      }
    }
    const rest = line.slice(start);
    this.#begun.push(rest);
    this.#length += rest.length + 1;
    if (this.#depth === 0 || this.#length > this.#maxLength) complete.push(this.#take(''));
    return complete.map((text) => text.trim()).filter((text) => text !== '');
  }

  /** Everything since the object began, with its last line. */
  #take(end: string): string {
    const text = [...this.#begun, end].join('\n');
    this.#begun = [];
    this.#length = 0;
    this.#depth = 0;
    return text;
  }
}

/** End of the string that begins here, or of the text. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === BACKSLASH) at += 1;
    else if (code === QUOTE) return at;
  }
  return text.length;
}
