/** Builds small ELF64 files in code, so that a test says itself what is in them. */

export interface BuildSection {
  name: string;
  /** `sh_type`; default SHT_PROGBITS. */
  type?: number;
  flags?: bigint;
  address?: bigint;
  bytes?: Uint8Array;
  /** `sh_size` where it is not the number of bytes (SHT_NOBITS, lies). */
  size?: bigint;
  link?: number;
}

export interface BuildSymbol {
  name: string;
  value: bigint;
  size?: bigint;
  /** 0 local, 1 global, 2 weak. */
  bind?: number;
  /** STT_*; default STT_OBJECT. */
  type?: number;
  /** Index of the defining section in the order given, from 1. */
  section: number;
}

export const SHT = { progbits: 1, symtab: 2, strtab: 3, note: 7, nobits: 8, symtabShndx: 18 } as const;
/** From here on a section's index does not fit its 16-bit field (SHN_LORESERVE); SHN_XINDEX stands there. */
const RESERVED = 0xff00;
const XINDEX = 0xffff;
export const SHF_COMPRESSED = 0x800n;

/** ELF header, the sections' bytes, section names, section table: section `i` of the input has index `i + 1`. */
export function buildElf(sections: readonly BuildSection[], symbols: readonly BuildSymbol[] = []): Buffer {
  const all: BuildSection[] = [...sections];
  if (symbols.length > 0) {
    const strings = new StringTable();
    const table = Buffer.alloc(24 * (symbols.length + 1));
    const wide = Buffer.alloc(4 * (symbols.length + 1));
    for (const [index, symbol] of symbols.entries()) {
      const at = 24 * (index + 1);
      table.writeUInt32LE(strings.add(symbol.name), at);
      table[at + 4] = ((symbol.bind ?? 1) << 4) | (symbol.type ?? 1);
      const reserved = symbol.section >= RESERVED;
      table.writeUInt16LE(reserved ? XINDEX : symbol.section, at + 6);
      if (reserved) wide.writeUInt32LE(symbol.section, 4 * (index + 1));
      table.writeBigUInt64LE(symbol.value, at + 8);
      table.writeBigUInt64LE(symbol.size ?? 0n, at + 16);
    }
    all.push({ name: '.symtab', type: SHT.symtab, bytes: table, link: all.length + 2 });
    all.push({ name: '.strtab', type: SHT.strtab, bytes: strings.bytes() });
    if (wide.some((byte) => byte !== 0)) {
      all.push({ name: '.symtab_shndx', type: SHT.symtabShndx, bytes: wide, link: all.length - 1 });
    }
  }
  const names = new StringTable();
  const offsets = [...all.map(({ name }) => names.add(name)), names.add('.shstrtab')];
  all.push({ name: '.shstrtab', type: SHT.strtab, bytes: names.bytes() });

  const header = Buffer.alloc(64);
  const pieces: Buffer[] = [header];
  let end = 64;
  const table = Buffer.alloc(64 * (all.length + 1));
  for (const [index, section] of all.entries()) {
    const bytes = Buffer.from(section.bytes ?? []);
    const at = 64 * (index + 1);
    table.writeUInt32LE(offsets[index]!, at);
    table.writeUInt32LE(section.type ?? SHT.progbits, at + 4);
    table.writeBigUInt64LE(section.flags ?? 0n, at + 8);
    table.writeBigUInt64LE(section.address ?? 0n, at + 16);
    table.writeBigUInt64LE(BigInt(end), at + 24);
    table.writeBigUInt64LE(section.size ?? BigInt(bytes.length), at + 32);
    table.writeUInt32LE(section.link ?? 0, at + 40);
    table.writeBigUInt64LE(1n, at + 48);
    pieces.push(bytes);
    end += bytes.length;
  }
  header.write('\x7fELF\x02\x01\x01', 'latin1');
  header.writeUInt16LE(2, 16);
  header.writeUInt16LE(62, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(end), 40);
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(64, 58);
  const many = all.length + 1 >= RESERVED;
  header.writeUInt16LE(many ? 0 : all.length + 1, 60);
  header.writeUInt16LE(many ? XINDEX : all.length, 62);
  if (many) {
    table.writeBigUInt64LE(BigInt(all.length + 1), 32);
    table.writeUInt32LE(all.length, 40);
  }
  return Buffer.concat([...pieces, table]);
}

/** A GNU build-id note. */
export function buildIdNote(id: string): Buffer {
  const bytes = Buffer.from(id, 'hex');
  const note = Buffer.alloc(16 + bytes.length);
  note.writeUInt32LE(4, 0);
  note.writeUInt32LE(bytes.length, 4);
  note.writeUInt32LE(3, 8);
  note.write('GNU\0', 12, 'latin1');
  bytes.copy(note, 16);
  return note;
}

/** Elf64_Chdr and the stream. */
export function compressed(type: number, declared: bigint, stream: Uint8Array): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(type, 0);
  header.writeBigUInt64LE(declared, 8);
  header.writeBigUInt64LE(1n, 16);
  return Buffer.concat([header, stream]);
}

/** Setup header of boot protocol 2.15 around a payload. */
export function buildBootImage(
  payload: Uint8Array,
  version = 0x020f,
  release = '6.1.0-test (me@host) #1',
): Buffer {
  const image = Buffer.alloc(5 * 512 + 0x100);
  image.writeUInt16LE(0xaa55, 0x1fe);
  image[0x1f1] = 4;
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt16LE(version, 0x206);
  image.writeUInt16LE(0x400 - 0x200, 0x20e);
  image.write(`${release}\0`, 0x400, 'latin1');
  image.writeUInt32LE(0x100, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([image, payload, Buffer.alloc(64)]);
}

/** What the kernel's build appends to a payload that is not gzip. */
export function withSize(packed: Uint8Array, size: number): Buffer {
  const tail = Buffer.alloc(4);
  tail.writeUInt32LE(size);
  return Buffer.concat([packed, tail]);
}

export const BANNER = 'Linux version 6.1.0-test (me@host) (gcc 12) #1 SMP 2026-01-01';

/** A little kernel: banner, a per-CPU variable, a global, two local namesakes. */
export function buildKernel(extra: readonly BuildSection[] = []): Buffer {
  const rodata = Buffer.concat([Buffer.alloc(32, 0x41), Buffer.from(`${BANNER}\n\0`), Buffer.alloc(7)]);
  return buildElf(
    [
      { name: '.text', flags: 6n, address: 0xffffffff81000000n, bytes: Buffer.alloc(256, 0x90) },
      { name: '.rodata', flags: 2n, address: 0xffffffff82000000n, bytes: rodata },
      {
        name: '.notes',
        type: SHT.note,
        flags: 2n,
        address: 0xffffffff82100000n,
        bytes: buildIdNote('0123456789abcdef'),
      },
      { name: '.data..percpu', flags: 3n, bytes: Buffer.alloc(64) },
      { name: '.bss', type: SHT.nobits, flags: 3n, address: 0xffffffff83000000n, size: 4096n },
      ...extra,
    ],
    [
      { name: 'linux_banner', value: 0xffffffff82000020n, size: BigInt(BANNER.length + 2), section: 2 },
      { name: '_text', value: 0xffffffff81000000n, type: 0, section: 1 },
      { name: 'schedule', value: 0xffffffff81000040n, size: 16n, type: 2, section: 1 },
      { name: 'runqueues', value: 0x20n, size: 32n, section: 4 },
      { name: 'twice', value: 0xffffffff83000000n, bind: 0, section: 5 },
      { name: 'twice', value: 0xffffffff83000008n, bind: 0, section: 5 },
      { name: 'x_runqueues', value: 0xffffffff83000010n, bind: 0, section: 5 },
      { name: 'outside', value: 0n, section: 0 },
    ],
  );
}

/** Strings one after another, each once. */
class StringTable {
  readonly #parts: string[] = [''];
  #size = 1;

  add(text: string): number {
    const at = this.#size;
    this.#parts.push(text);
    this.#size += Buffer.byteLength(text) + 1;
    return at;
  }

  bytes(): Buffer {
    return Buffer.from(`${this.#parts.join('\0')}\0`);
  }
}
