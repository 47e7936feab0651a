/** A name laid out in a box: lines at a font size, horizontal or turned by 90°. */
export interface Fitted {
  readonly lines: readonly string[];
  /** Pixels. */
  readonly size: number;
  readonly upright: boolean;
  /** Whether letters are missing. */
  readonly isCut: boolean;
}

const SIZES = [12, 10.5, 9, 8] as const;
const SMALLEST = 8;

/** Width of a monospaced letter and height of a line, relative to the font size. */
const LETTER = 0.602;
const LINE = 1.12;

/**
 * Finds the largest way to write a C name in a box of this many pixels, with line breaks after underscores. If even the
 * smallest does not fit, it is cut with an ellipsis.
 */
export function fit(name: string, width: number, height: number): Fitted {
  for (const size of SIZES) {
    const upright = layOut(name, width, height, size);
    if (upright) return { lines: upright, size, upright: true, isCut: false };
    const turned = height > width ? layOut(name, height, width, size) : null;
    if (turned) return { lines: turned, size, upright: false, isCut: false };
  }
  const upright = width >= height;
  const [along, across] = upright ? [width, height] : [height, width];
  const letters = Math.max(1, Math.floor(along / (SMALLEST * LETTER)));
  const count = Math.max(1, Math.floor(across / (SMALLEST * LINE)));
  const lines: string[] = [];
  for (let at = 0; at < name.length && lines.length < count; at += letters)
    lines.push(name.slice(at, at + letters));
  const isCut = letters * count < name.length;
  if (isCut) lines[count - 1] = `${lines[count - 1]!.slice(0, -1)}…`;
  return { lines, size: SMALLEST, upright, isCut };
}

function layOut(name: string, along: number, across: number, size: number): string[] | null {
  const letters = Math.floor(along / (size * LETTER));
  const count = Math.floor(across / (size * LINE));
  const lines: string[] = [''];
  for (const word of name.split(/(?<=[_|, ])(?=[^_|, ])/)) {
    if (word.trimEnd().length > letters) return null;
    if (lines.at(-1)!.length + word.trimEnd().length <= letters) lines[lines.length - 1] += word;
    else lines.push(word);
  }
  return lines.length <= count ? lines.map((line) => line.trim()) : null;
}
