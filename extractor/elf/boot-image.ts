import { ExtractError } from '../error.ts';
import type { FileSource } from './byte-source.ts';
import { detectFormat, FORMAT_BYTES } from './format.ts';
import { checkSupported, type Packed } from './unpack.ts';

// Offsets and rules of the setup header: Documentation/arch/x86/boot.rst of Linux, "The Real-Mode Kernel Header".
const SETUP_SECTS = 0x1f1;
const VERSION = 0x206;
const KERNEL_VERSION = 0x20e;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR = 512;
/** payload_offset and payload_length exist since protocol 2.08 (2.6.26). */
const FIRST_WITH_PAYLOAD = 0x0208;
/** The build appends the unpacked size, except to gzip, which ends with it anyway (cmd_*_with_size). */
const SIZE_BYTES = 4;
/** A kernel without debug information; Debian's unpack to 40 to 80 MiB. */
const MAX_IMAGE = 2 ** 30;
const MAX_VERSION = 256;

/** Content of a bzImage's setup header. */
export interface BootImage {
  /** `uname -r`; null if the header does not point to it. */
  readonly release: string | null;
  readonly payload: Packed;
}

/**
 * Finds the packed kernel in a bzImage.
 * @throws ExtractError `unsupported-compression`, `truncated`, `corrupt-archive`
 */
export function readBootImage(source: FileSource): BootImage {
  const { path } = source;
  const header = source.read(0, FORMAT_BYTES);
  const version = header.readUInt16LE(VERSION);
  if (version < FIRST_WITH_PAYLOAD) {
    const protocol = `${version >> 8}.${String(version & 0xff).padStart(2, '0')}`;
    throw new ExtractError(
      'unsupported-compression',
      `${path} has boot protocol ${protocol}, which does not say where the kernel is; give the vmlinux of its build`,
      { path, version },
    );
  }
  // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
  const protectedMode = ((header[SETUP_SECTS] || 4) + 1) * SECTOR;
  const offset = protectedMode + header.readUInt32LE(PAYLOAD_OFFSET);
  const length = header.readUInt32LE(PAYLOAD_LENGTH);
  if (length <= SIZE_BYTES) {
    throw new ExtractError(
      'corrupt-archive',
      `${path} declares a kernel of ${length} bytes; fetch or copy it again`,
      {
        path,
        length,
      },
    );
  }
  if (offset + length > source.size) {
    throw new ExtractError(
      'truncated',
      `${path} ends at byte ${source.size}, but its kernel reaches to ${offset + length}; fetch or copy it again`,
      { path, offset, length, size: source.size },
    );
  }
  const start = source.read(offset, Math.min(FORMAT_BYTES, length));
  const detected = detectFormat(start);
  // Some are built without compression.
  const format = detected === 'elf' ? 'stored' : detected;
  checkSupported(path, format);
  const release = readRelease(source, header);
  const unpackedSize = source.read(offset + length - SIZE_BYTES, SIZE_BYTES).readUInt32LE(0);
  if (unpackedSize > MAX_IMAGE) {
    throw new ExtractError(
      'corrupt-archive',
      `${path} declares a kernel of ${unpackedSize} bytes, more than ${MAX_IMAGE}; fetch or copy it again`,
      { path, unpackedSize, bound: MAX_IMAGE },
    );
  }
  const packedLength = format === 'gzip' ? length : length - SIZE_BYTES;
  return { release, payload: { source, offset, length: packedLength, format, unpackedSize } };
}

/** The text at kernel_version + 0x200 begins with the release. */
function readRelease(source: FileSource, header: Buffer): string | null {
  const pointer = header.readUInt16LE(KERNEL_VERSION);
  if (pointer === 0) return null;
  const at = pointer + SECTOR;
  if (at >= source.size) return null;
  const text = source.read(at, Math.min(MAX_VERSION, source.size - at)).toString('latin1');
  return /^(\d+\.\d+[\w.+~-]*)[ \0]/.exec(text)?.[1] ?? null;
}
