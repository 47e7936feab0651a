import { ExtractError } from '../error.ts';
import type { FileSource } from './byte-source.ts';
import type { Packed } from './unpack.ts';

// Offsets of the PE/COFF specification: the MS-DOS stub, COFF file header, section table.
const PE_OFFSET = 0x3c;
const MIN_STUB = 0x40;
const COFF_HEADER = 24;
const SECTION_HEADER = 40;
/** systemd-stub's images have a dozen; loaders refuse more than 96. */
const MAX_SECTIONS = 96;

/**
 * Finds the kernel in a unified kernel image: an EFI program with a boot image in its section `.linux` (UAPI Group
 * specification "Unified Kernel Image").
 * @throws ExtractError `not-a-kernel` for other EFI programs, `truncated`
 */
export function readUnifiedImage(source: FileSource): Packed {
  const { path } = source;
  const none = () =>
    new ExtractError(
      'not-a-kernel',
      `${path} is an EFI program without a kernel in it (no section .linux); give the vmlinuz that it starts`,
      { path },
    );
  if (source.size < MIN_STUB) throw none();
  const at = source.read(PE_OFFSET, 4).readUInt32LE(0);
  if (at + COFF_HEADER > source.size) throw none();
  const header = source.read(at, COFF_HEADER);
  if (header.toString('latin1', 0, 4) !== 'PE\0\0') throw none();
  const count = header.readUInt16LE(6);
  if (count > MAX_SECTIONS) throw none();
  const table = source.read(at + COFF_HEADER + header.readUInt16LE(20), count * SECTION_HEADER);
  for (let entry = 0; entry < table.length; entry += SECTION_HEADER) {
    if (table.toString('latin1', entry, entry + 8) !== '.linux\0\0') continue;
    // The kernel's size is the one in memory; the one in the file is rounded up. objcopy leaves the former at 0.
    const stored = table.readUInt32LE(entry + 16);
    const length = Math.min(table.readUInt32LE(entry + 8) || stored, stored);
    const offset = table.readUInt32LE(entry + 20);
    if (offset + length > source.size) {
      throw new ExtractError(
        'truncated',
        `${path} ends at byte ${source.size}, but its kernel reaches to ${offset + length}; fetch or copy it again`,
        { path, offset, length, size: source.size },
      );
    }
    return { source, offset, length, format: 'stored', unpackedSize: length };
  }
  throw none();
}
