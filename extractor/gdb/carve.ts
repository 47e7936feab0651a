import { closeSync, openSync, writeSync } from 'node:fs';

/** One section of the file to write, in consecutive pieces. */
export interface CarvedSection {
  name: string;
  size: number;
  chunks(): Iterable<Uint8Array>;
}

const HEADER = 64;
const SECTION_HEADER = 64;
const SHT_PROGBITS = 1;
const SHT_STRTAB = 3;
const EM_X86_64 = 62;

/**
 * Writes an x86-64 ELF file with only the given sections, none of them loaded (System V ABI, chapter 4). gdb reads the
 * same structures from it as from the whole kernel, without the kernel's symbols and units.
 */
export function writeElf(path: string, pieces: readonly CarvedSection[]): void {
  const names = ['', ...pieces.map(({ name }) => name), '.shstrtab'];
  const strings = Buffer.from(names.map((name) => `${name}\0`).join(''));
  const starts = names.map((_, index) =>
    Buffer.byteLength(
      names
        .slice(0, index)
        .map((name) => `${name}\0`)
        .join(''),
    ),
  );
  const sizes = [0, ...pieces.map(({ size }) => size), strings.length];
  const table = Buffer.alloc(names.length * SECTION_HEADER);
  let at = HEADER;
  for (let index = 1; index < names.length; index++) {
    const entry = index * SECTION_HEADER;
    table.writeUInt32LE(starts[index]!, entry);
    table.writeUInt32LE(index === names.length - 1 ? SHT_STRTAB : SHT_PROGBITS, entry + 4);
    table.writeBigUInt64LE(BigInt(at), entry + 24);
    table.writeBigUInt64LE(BigInt(sizes[index]!), entry + 32);
    table.writeBigUInt64LE(1n, entry + 48);
    at += sizes[index]!;
  }
  const header = Buffer.alloc(HEADER);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(2, 16); // ET_EXEC
  header.writeUInt16LE(EM_X86_64, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(at), 40); // the section table lies behind all sections
  header.writeUInt16LE(HEADER, 52);
  header.writeUInt16LE(SECTION_HEADER, 58);
  header.writeUInt16LE(names.length, 60);
  header.writeUInt16LE(names.length - 1, 62);

  const descriptor = openSync(path, 'wx', 0o600);
  try {
    const write = (bytes: Uint8Array) => {
      for (let done = 0; done < bytes.length; ) done += writeSync(descriptor, bytes, done);
    };
    write(header);
    for (const piece of pieces) for (const chunk of piece.chunks()) write(chunk);
    write(strings);
    write(table);
  } finally {
    closeSync(descriptor);
  }
}
