/** Every so many symbols a marker says where the next name begins. */
const PER_MARKER = 256;
/** Bytes of a name at most: KSYM_NAME_LEN tokens (512 since 6.1) and two bytes of length. */
const MAX_NAME = 2 + 512;
const MIN_NAME = 2;
/** Fewer markers than these are no proof; a kernel has hundreds. */
const MIN_MARKERS = 4;
/** A kernel with all of its drivers built in has some 400,000 symbols. */
const MAX_SYMBOLS = 4 << 20;
/** Names, markers and sequence numbers before the tokens: 16 MiB are four times the largest kernel's. */
const MAX_BEFORE = 16 << 20;
/** Behind the markers chance may go on with numbers that look like more of them. */
const MAX_CHANCE = 4;
const ALIGNMENT = 8;

/** `kallsyms_num_syms` and `kallsyms_names`, in bytes from the start of what was searched. */
export interface NameTable {
  /** Where the number of symbols is. */
  readonly countAt: number;
  readonly count: number;
  readonly start: number;
}

/**
 * The names before a table of tokens: up to 6.3 sequence numbers may stand between (three bytes for each symbol), later
 * they do not, and neither is asked for. Markers are found by their own shape, names by being what every marker says.
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

/** Steps that are left for a search: whatever the bytes are, it ends. */
export interface Budget {
  left: number;
}

/** Runs of 32-bit numbers that begin with 0 and rise by what 256 names can take. */
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
 * How many tokens a name has, and in how many bytes that is said: two where bit 7 is set ("kallsyms: support big kernel
 * symbols", 6.1), low 7 bits first.
 */
export function nameLength(bytes: Buffer, at: number): { tokens: number; bytes: 1 | 2 } {
  const low = bytes[at]!;
  if ((low & 0x80) === 0) return { tokens: low, bytes: 1 };
  return { tokens: (low & 0x7f) | ((bytes[at + 1] ?? 0) << 7), bytes: 2 };
}
