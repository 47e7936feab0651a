/** Builds BTF in code, kind by kind, from the format's description (Documentation/bpf/btf.rst of the kernel). */
export class BtfBuilder {
  readonly #types: number[] = [];
  readonly #strings: number[] = [0];
  #count = 0;

  /** Offset of a string in the string section. */
  string(text: string): number {
    if (text === '') return 0;
    const offset = this.#strings.length;
    this.#strings.push(...Buffer.from(text, 'utf8'), 0);
    return offset;
  }

  /** Adds a type of any kind. @returns its id */
  type(
    kind: number,
    options: { name?: string; flag?: boolean; vlen?: number; third?: number; trailer?: number[] } = {},
  ): number {
    const { name = '', flag = false, vlen = 0, third = 0, trailer = [] } = options;
    const info = ((flag ? 0x8000_0000 : 0) | (kind << 24) | vlen) >>> 0;
    this.#types.push(this.string(name), info, third, ...trailer);
    return ++this.#count;
  }

  /** @param encoding 1 signed, 2 char, 4 bool */
  int(name: string, size: number, encoding = 0, bits = size * 8, offset = 0): number {
    return this.type(1, { name, third: size, trailer: [((encoding << 24) | (offset << 16) | bits) >>> 0] });
  }

  pointer(to: number): number {
    return this.type(2, { third: to });
  }

  array(of: number, count: number, index = of): number {
    return this.type(3, { trailer: [of, index, count] });
  }

  /** @param members of a record with kind_flag when any has a bit size */
  record(
    tag: 'struct' | 'union',
    name: string,
    size: number,
    members: [name: string, type: number, bitOffset: number, bitSize?: number][],
  ): number {
    const flag = members.some(([, , , bits]) => bits !== undefined);
    return this.type(tag === 'struct' ? 4 : 5, {
      name,
      flag,
      vlen: members.length,
      third: size,
      trailer: members.flatMap(([member, type, offset, bits = 0]) => [
        this.string(member),
        type,
        ((bits << 24) | offset) >>> 0,
      ]),
    });
  }

  /**
   * The whole blob.
   * @param layout bytes that types of each kind have beyond the common ones, from kind 0 on: fixed, and for each entry
   */
  bytes(layout: readonly (readonly [fixed: number, each: number])[] = []): Buffer {
    const types = Buffer.from(Uint32Array.from(this.#types).buffer);
    const strings = Buffer.from(this.#strings);
    const headerSize = layout.length ? 32 : 24;
    const header = Buffer.alloc(headerSize);
    header.writeUInt16LE(0xeb9f, 0);
    header[2] = 1;
    header.writeUInt32LE(headerSize, 4);
    header.writeUInt32LE(0, 8);
    header.writeUInt32LE(types.length, 12);
    header.writeUInt32LE(types.length, 16);
    header.writeUInt32LE(strings.length, 20);
    if (layout.length === 0) return Buffer.concat([header, types, strings]);
    const padding = Buffer.alloc(-(types.length + strings.length) & 3);
    const kinds = Buffer.from(layout.flatMap(([fixed, each]) => [fixed, each, 0, 0]));
    header.writeUInt32LE(types.length + strings.length + padding.length, 24);
    header.writeUInt32LE(kinds.length, 28);
    return Buffer.concat([header, types, strings, padding, kinds]);
  }
}
