/** What a file's first bytes identify; its name never counts. */
export type FileFormat =
  | 'elf'
  | 'btf'
  | 'bzimage'
  | 'pe'
  | 'gzip'
  | 'xz'
  | 'zstd'
  | 'lz4-legacy'
  | 'lz4'
  | 'bzip2'
  | 'lzma'
  | 'lzo'
  | 'ar'
  | 'unknown';

/** How many bytes {@link detectFormat} needs. */
export const FORMAT_BYTES = 0x250;

const MAGICS: readonly (readonly [FileFormat, number, string])[] = [
  ['elf', 0, '7f454c46'],
  // struct btf_header: magic 0xeb9f little-endian, version 1.
  ['btf', 0, '9feb01'],
  // The same from a big-endian machine, recognized in order to refuse it.
  ['btf', 0, 'eb9f01'],
  // Boot protocol: boot_flag 0xaa55 at 0x1fe, "HdrS" at 0x202.
  ['bzimage', 0x202, '48647253'],
  // A boot image may begin like this too, so look for that first.
  ['pe', 0, '4d5a'],
  ['gzip', 0, '1f8b08'],
  ['xz', 0, 'fd377a585a00'],
  ['zstd', 0, '28b52ffd'],
  ['lz4-legacy', 0, '02214c18'],
  ['lz4', 0, '04224d18'],
  ['bzip2', 0, '425a68'],
  ['lzo', 0, '894c5a4f'],
  // LZMA has no magic: properties byte 0x5d and a power-of-two dictionary, as lib/decompress.c tests.
  ['lzma', 0, '5d0000'],
  ['ar', 0, '213c617263683e0a'],
];

export function detectFormat(start: Buffer): FileFormat {
  for (const [format, offset, magic] of MAGICS) {
    if (start.toString('hex', offset, offset + magic.length / 2) === magic) return format;
  }
  return 'unknown';
}

/** Whether the bytes begin an ELF file of any kind. */
export function isElf(start: Buffer): boolean {
  return detectFormat(start) === 'elf';
}
