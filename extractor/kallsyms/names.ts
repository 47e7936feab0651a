/** A marker gives the start of every so many names. */
const PER_MARKER = 256;
/** Bytes of a name at most: KSYM_NAME_LEN tokens (512 since 6.1) and two bytes of length. */
const MAX_NAME = 2 + 512;
const MIN_NAME = 2;
/** Fewer markers are no proof; a kernel has hundreds. */
const MIN_MARKERS = 4;
/** A kernel with all of its drivers built in has some 400,000 symbols. */
const MAX_SYMBOLS = 4 << 20;
/** Names, markers and sequence numbers before the tokens: 16 MiB is four times the largest kernel's. */
const MAX_BEFORE = 16 << 20;
/** After the markers, numbers that look like more of them may follow by chance. */
const MAX_CHANCE = 4;
const ALIGNMENT = 8;

/** `kallsyms_num_syms` and `kallsyms_names`, in bytes from the start of the searched data. */
export interface NameTable {
  /** Position of the number of symbols. */
  readonly countAt: number;
  readonly count: number;
  readonly start: number;
}

/**
 * Finds the names before a table of tokens. Up to 6.3 sequence numbers may lie between (three bytes per symbol), later
 * not; neither is assumed. Markers are found by their shape, names by agreeing with every marker.
 */
export function* nameTables(bytes: Buffer, before: number, budget: Budget): Generator<NameTable> {
  const from = Math.max(0, before - MAX_BEFORE);
  budget.left -= (before - from) / 4;
  for (const { start, most } of markerRuns(bytes, from, before)) {
    for (let markers = most; markers >= Math.max(MIN_MARKERS, most - MAX_CHANCE); markers--) {
      yield* namesBefore(bytes, start, markers, budget);
      if (budget.left <= 0) return;
    }
  }
}

/** Steps left for a search, so that it ends for any input. */
export interface Budget {
  left: number;
}

/** Runs of 32-bit numbers that begin with 0 and rise by at most the size of 256 names. */
function* markerRuns(bytes: Buffer, from: number, to: number): Generator<{ start: number; most: number }> {
  const first = Math.ceil(from / 4) * 4;
  for (let start = first; start + 4 * MIN_MARKERS <= to; start += 4) {
    if (bytes[start] !== 0 || bytes.readUInt32LE(start) !== 0) continue;
    let most = 1;
    for (let last = 0; start + 4 * (most + 1) <= to && most <= MAX_SYMBOLS / PER_MARKER; most++) {
      const next = bytes.readUInt32LE(start + 4 * most);
      const step = next - last;
      if (step < PER_MARKER * MIN_NAME || step > PER_MARKER * MAX_NAME) break;
      last = next;
    }
    if (most < MIN_MARKERS) continue;
    yield { start, most };
    start += 4 * (most - 1);
  }
}

function* namesBefore(
  bytes: Buffer,
  markersAt: number,
  markers: number,
  budget: Budget,
): Generator<NameTable> {
  const lastMarker = bytes.readUInt32LE(markersAt + 4 * (markers - 1));
  const latest = markersAt - lastMarker - MIN_NAME;
  const earliest = Math.max(0, markersAt - lastMarker - PER_MARKER * MAX_NAME - 2 * ALIGNMENT);
  budget.left -= Math.max(1, (latest - earliest) / 4);
  // The number of symbols is 4 or, aligned up to 6.19, 8 bytes before the names.
  for (let countAt = Math.ceil(earliest / 4) * 4; countAt < latest; countAt += 4) {
    const count = bytes.readUInt32LE(countAt);
    if (Math.ceil(count / PER_MARKER) !== markers) continue;
    for (const start of [countAt + 4, countAt + 8]) {
      const names = { countAt, count, start };
      if (isProved(bytes, names, markersAt, budget)) yield names;
    }
  }
}

/** Whether the names are where every marker says, and end where the markers begin. */
function isProved(bytes: Buffer, { count, start }: NameTable, markersAt: number, budget: Budget): boolean {
  let at = start;
  for (let index = 0; index < count; index++) {
    if (at >= markersAt || --budget.left <= 0) return false;
    if (index % PER_MARKER === 0 && bytes.readUInt32LE(markersAt + (index / PER_MARKER) * 4) !== at - start) {
      return false;
    }
    const length = nameLength(bytes, at);
    if (length.tokens === 0) return false;
    at += length.bytes + length.tokens;
  }
  return at <= markersAt && markersAt - at < ALIGNMENT;
}

/**
 * Number of tokens in a name, and of bytes that encode it: two if bit 7 is set ("kallsyms: support big kernel symbols",
 * 6.1), low 7 bits first.
 */
export function nameLength(bytes: Buffer, at: number): { tokens: number; bytes: 1 | 2 } {
  const low = bytes[at]!;
  if ((low & 0x80) === 0) return { tokens: low, bytes: 1 };
  return { tokens: (low & 0x7f) | ((bytes[at + 1] ?? 0) << 7), bytes: 2 };
}
