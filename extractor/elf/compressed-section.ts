import { constants, inflateSync, zstdDecompressSync } from 'node:zlib';
import { ExtractError } from '../error.ts';
import type { FileSource } from './byte-source.ts';
import type { SectionHeader } from './image.ts';

/**
 * What a compressed section may claim to hold: at most 1 GiB, and at most 16 MiB more than 256 times its
 * compressed size. Debug sections of kernels shrink to a half to a tenth.
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
  /** Bytes after decompression, as declared. */
  readonly size: number;
  /** Where the stream starts in the section. */
  readonly headerSize: number;
}

/**
 * How a section is compressed; null when it is not. Reads the compression header only.
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
 * @throws ExtractError `corrupt-elf` when the stream is damaged or has another size than declared
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
    // maxOutputLength 0 would be refused, so an empty section may make one byte too many: checked below.
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
