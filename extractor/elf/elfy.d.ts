/** The part of elfy 1.0.0 that the extractor uses; the package has no types. */
declare module 'elfy' {
  export interface ElfyHeader {
    class: '32' | '64';
    endian: 'lsb' | 'msb';
    type: string | undefined;
    machine: string | undefined;
    shoff: number;
    shentsize: number;
    shnum: number;
    shstrndx: number;
  }

  /** Not declared because wrong on ELF64: `addr` is a rounded double, and `addralign`/`entsize` use wrong offsets. */
  export interface ElfySection {
    /** Offset into the section name table. */
    name: number;
    type: string | number;
    flags: Record<string, boolean>;
    off: number;
    size: number;
    link: number;
    info: number;
  }

  export class Parser {
    parseHeader(buffer: Buffer): ElfyHeader;
    parseSections(
      buffer: Buffer,
      header: Pick<ElfyHeader, 'class' | 'shoff' | 'shnum' | 'shentsize'>,
    ): ElfySection[];
  }

  const elfy: { Parser: typeof Parser };
  export default elfy;
}
