/** Symbol names contain no bytes up to and including the space; those end a name in every kind of table. */
const LAST_TERMINATOR = 0x20;

/** Finds wanted names among many in a buffer, without making strings of the others. */
export class NameMatcher {
  readonly #byHash = new Map<number, { name: string; bytes: Buffer }[]>();
  readonly #maybe = new Uint8Array(1 << 16);

  constructor(names: Iterable<string>) {
    for (const name of new Set(names)) {
      const bytes = Buffer.from(name, 'utf8');
      if (bytes.length === 0 || bytes.some((byte) => byte <= LAST_TERMINATOR)) continue;
      const hash = hashStart(bytes, 0);
      this.#maybe[hash] = 1;
      const list = this.#byHash.get(hash);
      if (list) list.push({ name, bytes });
      else this.#byHash.set(hash, [{ name, bytes }]);
    }
  }

  /** A quick test that is false for most unwanted names. */
  mayStart(buffer: Buffer, offset: number): boolean {
    return this.#maybe[hashStart(buffer, offset)] === 1;
  }

  /** The wanted name that starts at `offset` and ends at a terminator or at the buffer's end, otherwise null. */
  match(buffer: Buffer, offset: number): string | null {
    const hash = hashStart(buffer, offset);
    if (this.#maybe[hash] === 0) return null;
    for (const { name, bytes } of this.#byHash.get(hash)!) {
      const end = offset + bytes.length;
      if (end > buffer.length || (buffer[end] ?? 0) > LAST_TERMINATOR) continue;
      if (buffer.compare(bytes, 0, bytes.length, offset, end) === 0) return name;
    }
    return null;
  }
}

/** Number of hashed bytes: enough to distinguish `__per_cpu_offset` from thousands of `__ksymtab_…` and `__crc_…`. */
const HASHED_BYTES = 7;

/** 16 bits from the first bytes of a name. */
function hashStart(buffer: Buffer, offset: number): number {
  let hash = 0;
  const end = Math.min(offset + HASHED_BYTES, buffer.length);
  for (let index = offset; index < end; index++) {
    const byte = buffer[index]!;
    if (byte <= LAST_TERMINATOR) break;
    hash = (hash * 31 + byte) & 0xffff;
  }
  return hash;
}
