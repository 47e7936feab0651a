import { constants, inflateSync, zstdDecompressSync } from 'node:zlib';
import { ExtractError } from '../error.ts';
import type { FileSource } from './byte-source.ts';
import type { SectionHeader } from './image.ts';

/**
 * Limits on the declared size of a compressed section: 1 GiB, and 16 MiB plus 256 times its compressed size. Debug
 * sections of kernels shrink to between a half and a tenth.
 */
const MAX_SIZE = 2 ** 30;
const MAX_RATIO = 256;
const RATIO_SLACK = 16 << 20;

/** `ch_type` of the ELF specification's Elf64_Chdr. */
const ELFCOMPRESS_ZLIB = 1;
const ELFCOMPRESS_ZSTD = 2;
const CHDR_SIZE = 24;
/** Old form, binutils' `.zdebug_*`: "ZLIB" and the size as big-endian 64 bits. */
const ZDEBUG_HEADER_SIZE = 12;

export interface SectionCompression {
  readonly format: 'zlib' | 'zstd';
  /** Declared bytes after decompression. */
  readonly size: number;
  /** Offset of the stream in the section. */
  readonly headerSize: number;
}

/**
 * The compression of a section; null if there is none. Reads only the compression header.
 * @throws ExtractError `corrupt-elf`, `unsupported-compression`
 */
export function readCompressionHeader(source: FileSource, header: SectionHeader): SectionCompression | null {
  const old = !header.compressed && header.name.startsWith('.zdebug_');
  if (!header.compressed && !old) return null;
  const headerSize = old ? ZDEBUG_HEADER_SIZE : CHDR_SIZE;
  if (header.size < headerSize) throw corrupt(source, header, 'has no room for its compression header');
  const start = source.read(header.offset, headerSize);
  let size: bigint;
  let format: SectionCompression['format'];
  if (old) {
    if (start.toString('latin1', 0, 4) !== 'ZLIB')
      throw corrupt(source, header, 'does not start with "ZLIB"');
    format = 'zlib';
    size = start.readBigUInt64BE(4);
  } else {
    const type = start.readUInt32LE(0);
    if (type !== ELFCOMPRESS_ZLIB && type !== ELFCOMPRESS_ZSTD) {
      throw new ExtractError(
        'unsupported-compression',
        `${source.path}: ${header.name} is compressed in a way that is newer than this version of domsched, or damaged ` +
          `(type ${type}); give the file that the build left, before its sections were compressed`,
        { path: source.path, section: header.name, type },
      );
    }
    format = type === ELFCOMPRESS_ZLIB ? 'zlib' : 'zstd';
    size = start.readBigUInt64LE(8);
  }
  const bound = Math.min(MAX_SIZE, RATIO_SLACK + MAX_RATIO * header.size);
  if (size > BigInt(bound)) {
    throw corrupt(
      source,
      header,
      `claims ${size} bytes out of ${header.size}, more than the bound of ${bound}`,
    );
  }
  return { format, size: Number(size), headerSize };
}

/**
 * Decompresses a section; never produces more than the declared bytes.
 * @throws ExtractError `corrupt-elf` if the stream is damaged or its size differs from the declared one
 */
export function inflateSection(
  source: FileSource,
  header: SectionHeader,
  compression: SectionCompression,
): Buffer {
  const { headerSize, format, size } = compression;
  const stream = source.read(header.offset + headerSize, header.size - headerSize);
  let bytes: Buffer;
  try {
    // A maxOutputLength of 0 is refused, so an empty section may produce one byte too many; checked below.
    const options = { maxOutputLength: Math.max(size, 1) };
    bytes =
      format === 'zlib'
        ? inflateSync(stream, { ...options, finishFlush: constants.Z_FINISH })
        : zstdDecompressSync(stream, options);
  } catch (error) {
    throw corrupt(source, header, 'does not decompress to the size it declares', error);
  }
  if (bytes.length !== size) {
    throw corrupt(source, header, `holds ${bytes.length} bytes instead of the ${size} it declares`);
  }
  return bytes;
}

function corrupt(source: FileSource, header: SectionHeader, what: string, cause?: unknown): ExtractError {
  return new ExtractError(
    'corrupt-elf',
    `${source.path} is damaged: section ${header.name} ${what}; fetch or copy it again`,
    { path: source.path, section: header.name, what },
    cause === undefined ? undefined : { cause },
  );
}
