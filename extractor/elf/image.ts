import elfy, { type ElfySection } from 'elfy';
import { ExtractError } from '../error.ts';
import type { FileSource } from './byte-source.ts';
import { isElf } from './format.ts';

const HEADER_SIZE = 64;
const SECTION_HEADER_SIZE = 64;

/** A kernel has some tens of sections, or some hundred thousand if every function and variable has its own. */
const MAX_SECTIONS = 1 << 20;
/** The section name table of a kernel has about 1 KiB; with a section per function, some 30 bytes each. */
const MAX_NAME_TABLE = 64 << 20;
/** Longest section name accepted, so that sections sharing one endless name cost little. */
const MAX_NAME = 1024;

/** SHN_LORESERVE and SHN_XINDEX of the ELF specification: the real number is in section 0. */
const SHN_XINDEX = 0xffff;

/** ET_REL: an unlinked object file or module. */
const ET_REL = 1;

/** Sections of relocations; elfy has no name for SHT_CREL of LLVM 20. */
const RELOCATIONS: readonly (string | number)[] = ['rela', 'rel', 0x4000_0014];

/** SHF_COMPRESSED of the ELF specification; elfy has no name for it. */
const SHF_COMPRESSED = 0x800;

/** One section header, checked against the file. */
export interface SectionHeader {
  readonly index: number;
  readonly name: string;
  /** elfy's name of the `sh_type` (`progbits`, `nobits`, `symtab`, …) or its number. */
  readonly type: string | number;
  readonly address: bigint;
  readonly offset: number;
  /** `sh_size`: bytes in the file, or for `nobits` only in memory. */
  readonly size: number;
  readonly link: number;
  /** For relocations: index of the section that they apply to. */
  readonly info: number;
  readonly compressed: boolean;
  /** SHF_ALLOC: part of the running kernel. */
  readonly allocated: boolean;
}

/** The section table of an ELF64 x86-64 file, read without the rest of the file. */
export interface ElfImage {
  readonly source: FileSource;
  /** In file order, section 0 included. */
  readonly headers: readonly SectionHeader[];
  /** ELF header and section table as in the file, for a digest. */
  readonly metadata: readonly Uint8Array[];
  /** Whether its sections are not linked yet: an object file or a module. */
  readonly relocatable: boolean;
  /** In a relocatable file: sections with relocations, by the index of the section that they apply to. */
  readonly relocations: ReadonlyMap<number, SectionHeader[]>;
}

/**
 * Reads ELF header and section table. elfy wants whole files and reads several 64-bit fields wrongly, so it gets the
 * 64-byte header, then only the table; addresses are read here, as they do not fit a double.
 *
 * @throws ExtractError `not-a-kernel`, `not-elf64`, `wrong-architecture`, `truncated`, `corrupt-elf`
 */
export function readElfImage(source: FileSource): ElfImage {
  const { path } = source;
  const header = source.read(0, Math.min(HEADER_SIZE, source.size));
  checkIdentity(header, path);
  if (header.length < HEADER_SIZE) source.read(0, HEADER_SIZE);

  const parser = new elfy.Parser();
  const parsed = parser.parseHeader(header);
  if (parsed.shoff === 0) {
    throw new ExtractError('not-a-kernel', `${path} has no section table; give the vmlinux of the build`, {
      path,
    });
  }
  if (parsed.shentsize !== SECTION_HEADER_SIZE) {
    throw corrupt(path, `section headers of ${parsed.shentsize} bytes instead of ${SECTION_HEADER_SIZE}`);
  }
  if (parsed.shoff < HEADER_SIZE) throw corrupt(path, 'section table inside the ELF header');

  let { shnum, shstrndx } = parsed;
  if (shnum === 0 || shstrndx === SHN_XINDEX) {
    const [first] = parseTable(parser, source.read(parsed.shoff, SECTION_HEADER_SIZE), 1);
    if (shnum === 0) shnum = first!.size;
    if (shstrndx === SHN_XINDEX) shstrndx = first!.link;
  }
  if (shnum === 0) {
    throw new ExtractError('not-a-kernel', `${path} has no sections; give the vmlinux of the build`, {
      path,
    });
  }
  if (shnum > MAX_SECTIONS) throw corrupt(path, `${shnum} sections, more than ${MAX_SECTIONS}`);
  const table = source.read(parsed.shoff, shnum * SECTION_HEADER_SIZE);
  const raw = parseTable(parser, table, shnum);
  for (const [index, section] of raw.entries()) checkExtent(section, index, source);

  const names = readNames(raw[shstrndx], shstrndx, source);
  const headers = raw.map((section, index): SectionHeader => {
    return {
      index,
      name: nameAt(names, section.name, index, path),
      type: section.type,
      address: table.readBigUInt64LE(index * SECTION_HEADER_SIZE + 16),
      offset: section.off,
      size: section.size,
      link: section.link,
      info: section.info,
      compressed: (table.readUInt32LE(index * SECTION_HEADER_SIZE + 8) & SHF_COMPRESSED) !== 0,
      allocated: (table.readUInt32LE(index * SECTION_HEADER_SIZE + 8) & 2) !== 0,
    };
  });
  const relocatable = header.readUInt16LE(16) === ET_REL;
  const relocations = Map.groupBy(
    headers.filter(({ type }) => relocatable && RELOCATIONS.includes(type)),
    ({ info }) => info,
  );
  return { source, headers, metadata: [header, table], relocatable, relocations };
}

function checkIdentity(header: Buffer, path: string): void {
  if (!isElf(header)) {
    throw new ExtractError('not-a-kernel', `${path} is not an ELF file`, { path });
  }
  if (header.length > 4 && header[4] !== 2) {
    const bits = header[4] === 1 ? '32-bit' : `unknown class ${header[4]}`;
    throw new ExtractError('not-elf64', `${path} is an ELF file of ${bits}; domsched reads x86-64 kernels`, {
      path,
    });
  }
  if (header.length > 5 && header[5] !== 1) {
    throw new ExtractError(
      'wrong-architecture',
      `${path} is not little-endian; domsched reads x86-64 kernels`,
      {
        path,
      },
    );
  }
  if (header.length >= 20 && header.readUInt16LE(18) !== 62) {
    const machine = header.readUInt16LE(18);
    throw new ExtractError(
      'wrong-architecture',
      `${path} is for another machine (ELF machine ${machine}); domsched reads x86-64 kernels`,
      { path, machine },
    );
  }
}

/** Runs elfy's section parser on the table alone, which must not start at 0 (elfy takes that for "no table"). */
function parseTable(parser: InstanceType<typeof elfy.Parser>, table: Buffer, count: number): ElfySection[] {
  const padded = Buffer.concat([Buffer.alloc(HEADER_SIZE), table]);
  return parser.parseSections(padded, {
    class: '64',
    shoff: HEADER_SIZE,
    shnum: count,
    shentsize: SECTION_HEADER_SIZE,
  });
}

function checkExtent(section: ElfySection, index: number, source: FileSource): void {
  // Section 0 is no section; its fields hold overflow of the header. NOBITS takes no room in the file.
  if (index === 0 || section.type === 'null' || section.type === 'nobits') return;
  const end = section.off + section.size;
  if (
    !Number.isSafeInteger(section.off) ||
    !Number.isSafeInteger(section.size) ||
    !Number.isSafeInteger(end)
  ) {
    throw corrupt(source.path, `section ${index} lies at an impossible offset`);
  }
  if (end > source.size) {
    throw new ExtractError(
      'truncated',
      `${source.path} ends at byte ${source.size}, but section ${index} needs ${end} bytes; fetch or copy it again`,
      { path: source.path, section: index, offset: section.off, length: section.size, size: source.size },
    );
  }
}

function readNames(section: ElfySection | undefined, index: number, source: FileSource): Buffer {
  if (section?.type !== 'strtab') throw corrupt(source.path, `section ${index} is no section name table`);
  if (section.size > MAX_NAME_TABLE) throw corrupt(source.path, `section names of ${section.size} bytes`);
  return source.read(section.off, section.size);
}

function nameAt(names: Buffer, offset: number, index: number, path: string): string {
  const room = names.subarray(offset, offset + MAX_NAME);
  const length = room.indexOf(0);
  if (length < 0) throw corrupt(path, `name of section ${index} does not end in the name table`);
  return room.toString('latin1', 0, length);
}

function corrupt(path: string, what: string): ExtractError {
  return new ExtractError('corrupt-elf', `${path} is damaged: ${what}; fetch or copy it again`, {
    path,
    what,
  });
}
