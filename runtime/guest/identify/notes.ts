/** Type of the note with a build-id, of owner `GNU` (elf.h, NT_GNU_BUILD_ID). */
const BUILD_ID_TYPE = 3;
const HEADER = 12;

/**
 * The build-id among ELF notes (System V ABI, Note Section: sizes of name and descriptor, type, then both padded to 4
 * bytes). A size that leads out of the bytes ends the search.
 * @returns lower-case hex; null when there is none
 */
export function buildIdOf(notes: Uint8Array): string | null {
  const view = new DataView(notes.buffer, notes.byteOffset, notes.byteLength);
  for (let at = 0; at + HEADER <= notes.length; ) {
    const nameSize = view.getUint32(at, true);
    const size = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    const name = at + HEADER;
    const content = name + padded(nameSize);
    if (content + size > notes.length) return null;
    const owner = Buffer.from(notes.subarray(name, name + nameSize)).toString('latin1');
    if (type === BUILD_ID_TYPE && owner === 'GNU\0' && size > 0 && size <= 64) {
      return Buffer.from(notes.subarray(content, content + size)).toString('hex');
    }
    at = content + padded(size);
  }
  return null;
}

function padded(size: number): number {
  return Math.ceil(size / 4) * 4;
}
