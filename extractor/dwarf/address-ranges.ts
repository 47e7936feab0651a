/** An entry is a start and a length of this size. */
const ADDRESS_SIZE = 8;
const ENTRY_SIZE = 2 * ADDRESS_SIZE;
/** Length, version, offset of the unit, two sizes; padded to a multiple of an entry. */
const HEADER_SIZE = 12;

/**
 * Finds the unit with the code at an address in `.debug_aranges` (DWARF 5, section 6.1.2), which gcc writes and clang
 * does not. Only a hint: the table may be wrong, so check that the unit is the expected one.
 *
 * @param table the section
 * @returns offset of the unit's header in `.debug_info`; null if the table does not tell
 */
export function unitOffsetAt(table: Uint8Array, address: bigint): number | null {
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  for (let at = 0; at + HEADER_SIZE <= table.length; ) {
    const end = at + 4 + view.getUint32(at, true);
    // For a hint the 64-bit format is not worth reading.
    if (end > table.length) return null;
    const unit = view.getUint32(at + 6, true);
    const known = view.getUint16(at + 4, true) === 2 && view.getUint16(at + 10, true) === ADDRESS_SIZE;
    const first = at + Math.ceil(HEADER_SIZE / ENTRY_SIZE) * ENTRY_SIZE;
    for (let entry = first; known && entry + ENTRY_SIZE <= end; entry += ENTRY_SIZE) {
      const start = view.getBigUint64(entry, true);
      const length = view.getBigUint64(entry + ADDRESS_SIZE, true);
      if (address >= start && address - start < length) return unit;
    }
    at = end;
  }
  return null;
}
