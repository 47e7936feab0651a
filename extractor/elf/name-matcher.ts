/** Symbol names have no bytes up to and including the space; those end a name in every kind of table. */
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

  /** The wanted name that starts at `offset` and ends at a terminator or at the buffer's end, else null. */
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

/** 16 bits of the up to four bytes that a name begins with. */
function hashStart(buffer: Buffer, offset: number): number {
  let hash = 0;
  for (let index = offset; index < offset + 4; index++) {
    const byte = buffer[index] ?? 0;
    if (byte <= LAST_TERMINATOR) break;
    hash = (hash * 31 + byte) & 0xffff;
  }
  return hash;
}
