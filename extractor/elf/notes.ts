import { asBuffer } from './byte-source.ts';
import type { SectionData } from './kernel-file.ts';

const NT_GNU_BUILD_ID = 3;
/** Notes of a kernel take some hundred bytes; a build-id has 20 (SHA-1), or up to 64 if set by hand. */
const MAX_NOTES = 1 << 20;
const MAX_BUILD_ID = 64;

/**
 * GNU build-id in lower-case hex from a notes section (`.notes` of a kernel, `.note.gnu.build-id`), otherwise null.
 * Layout: gABI, "Note Section"; the kernel aligns name and description to 4 bytes.
 */
export function readBuildId(section: SectionData): string | null {
  const bytes = asBuffer(section.read(0, Math.min(section.size, MAX_NOTES)));
  let at = 0;
  while (at + 12 <= bytes.length) {
    const nameSize = bytes.readUInt32LE(at);
    const size = bytes.readUInt32LE(at + 4);
    const type = bytes.readUInt32LE(at + 8);
    const start = at + 12 + align4(nameSize);
    if (start + size > bytes.length) return null;
    const isGnu = nameSize === 4 && bytes.toString('latin1', at + 12, at + 16) === 'GNU\0';
    if (isGnu && type === NT_GNU_BUILD_ID && size > 0 && size <= MAX_BUILD_ID) {
      return bytes.toString('hex', start, start + size);
    }
    at = start + align4(size);
  }
  return null;
}

/** Rounds up to a multiple of 4; not by bit operations, which would wrap large sizes. */
function align4(size: number): number {
  return Math.ceil(size / 4) * 4;
}
