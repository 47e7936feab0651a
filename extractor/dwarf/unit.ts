import type { SectionData } from '../elf/kernel-file.ts';
import type { TypeNode } from '../graph.ts';

/** A file that contains units: the kernel file, the file that dwz shares between several, or a `.dwo` file. */
export interface UnitHome {
  readonly path: string;
  readonly kind: 'own' | 'alternate' | 'split';
  /** Finds a section by its plain name. */
  section(name: string): SectionData | null;
}

export type UnitSection = '.debug_info' | '.debug_types';

/** A unit of DWARF, known by its header. */
export interface Unit {
  readonly home: UnitHome;
  readonly section: UnitSection;
  /** Offset of its header in the section. */
  readonly offset: number;
  /** Size in bytes, including the header. */
  readonly size: number;
  readonly version: number;
  readonly addressSize: number;
  /** For type units: the signature, and the type's offset from the header. */
  readonly type: { signature: bigint; offset: number } | null;
  /** Whether the header marks it as the skeleton of a `.dwo` file's unit; DWARF 4 has no such mark. */
  readonly skeleton: boolean;
  /** Types read so far, by their offset from the header. */
  readonly nodes: Map<number, TypeNode>;
}

/** Greatest size of a header: a 64-bit type unit of DWARF 5 has 40 bytes. */
export const MAX_HEADER = 40;

const DW_UT_TYPE = 0x02;
const DW_UT_SKELETON = 0x04;
const DW_UT_SPLIT_TYPE = 0x06;

/**
 * Reads a unit's header (DWARF 5, section 7.5.1; DWARF 4, section 7.5.1).
 *
 * @param bytes up to {@link MAX_HEADER} bytes, if the section has as many
 * @param available bytes from the header to the section's end
 * @returns the unit, or a description of the defect
 */
export function parseUnitHeader(
  bytes: Uint8Array,
  home: UnitHome,
  section: UnitSection,
  offset: number,
  available: number,
): Unit | string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 11) return 'the section ends in a unit header';
  let at = 0;
  const read = (width: number): number => {
    const value = width === 8 ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true);
    at += width;
    return value;
  };
  let offsetSize = 4;
  let length = read(4);
  if (length === 0xffffffff) {
    offsetSize = 8;
    length = bytes.length < MAX_HEADER ? 0 : read(8);
  } else if (length >= 0xfffffff0) return `unit length ${length} is reserved`;
  const size = at + length;
  if (size > available) return `a unit of ${size} bytes does not fit into the ${available} that are left`;
  const version = view.getUint16(at, true);
  at += 2;
  if (version < 2 || version > 5) return `DWARF version ${version} is none of 2 to 5`;
  let isTypeUnit = section === '.debug_types';
  let skeleton = false;
  let addressSize: number;
  const headerSize = () => at + (isTypeUnit ? 8 + offsetSize : 0);
  if (version === 5) {
    const unitType = view.getUint8(at++);
    skeleton = unitType === DW_UT_SKELETON;
    isTypeUnit = unitType === DW_UT_TYPE || unitType === DW_UT_SPLIT_TYPE;
    addressSize = view.getUint8(at++);
    at += offsetSize;
  } else {
    at += offsetSize;
    if (at >= bytes.length) return 'the section ends in a unit header';
    addressSize = view.getUint8(at++);
  }
  if (headerSize() > Math.min(size, bytes.length))
    return `a unit of ${size} bytes has no room for its header`;
  let type: Unit['type'] = null;
  if (isTypeUnit) {
    const signature = view.getBigUint64(at, true);
    at += 8;
    type = { signature, offset: read(offsetSize) };
  }
  return { home, section, offset, size, version, addressSize, type, skeleton, nodes: new Map() };
}
