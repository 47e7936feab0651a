/** Bits of a record's flags; must match `shim/shim.h`. */
export const FLAG = {
  hasChildren: 1 << 0,
  declaration: 1 << 1,
  hasByteSize: 1 << 2,
  hasType: 1 << 3,
  /** The type is an offset in the whole section, perhaps in another unit. */
  typeInSection: 1 << 4,
  /** The type is the signature of a type unit. */
  typeIsSignature: 1 << 5,
  hasLocation: 1 << 6,
  hasDataBitOffset: 1 << 7,
  hasBitOffset: 1 << 8,
  hasBitSize: 1 << 9,
  hasValue: 1 << 10,
  hasCount: 1 << 11,
  /** A declaration (marked as such or not) whose definition is in the type unit with signature `type`. */
  externalType: 1 << 12,
  /** A member location that is not constant. */
  badLocation: 1 << 13,
  valueIsSigned: 1 << 14,
  prototyped: 1 << 15,
  /** The type is an offset in the section of the file that dwz shares between several. */
  typeInAlternate: 1 << 16,
} as const;

/** Tags of C's types (DWARF 5, table 7.3). */
export const TAG = {
  arrayType: 0x01,
  classType: 0x02,
  enumerationType: 0x04,
  formalParameter: 0x05,
  member: 0x0d,
  pointerType: 0x0f,
  referenceType: 0x10,
  structureType: 0x13,
  subroutineType: 0x15,
  typedef: 0x16,
  unionType: 0x17,
  unspecifiedParameters: 0x18,
  subrangeType: 0x21,
  baseType: 0x24,
  constType: 0x26,
  enumerator: 0x28,
  packedType: 0x2d,
  volatileType: 0x35,
  restrictType: 0x37,
  rvalueReferenceType: 0x42,
  atomicType: 0x47,
  immutableType: 0x4b,
} as const;

/** Bytes of `struct record`. */
export const RECORD_SIZE = 88;

/** One debugging information entry as `shim/` records it. */
export interface DwarfRecord {
  /** From the unit's header. */
  offset: number;
  tag: number;
  flags: number;
  encoding: number;
  name: string | null;
  byteSize: bigint;
  type: bigint;
  /** Bytes. */
  location: bigint;
  dataBitOffset: bigint;
  bitOffset: bigint;
  bitSize: bigint;
  value: bigint;
  count: bigint;
}

/** Decodes the record at `at`. @param text returns the string at an address of the module's memory */
export function decodeRecord(
  view: DataView,
  at: number,
  text: (address: number, length: number) => string,
): DwarfRecord {
  const name = view.getUint32(at + 16, true);
  const flags = view.getUint32(at + 8, true);
  // Most entries have one or two of these, and a bigint costs more than checking a flag.
  const where = (field: number, present: number) =>
    flags & present ? view.getBigUint64(at + field, true) : 0n;
  return {
    offset: view.getUint32(at, true),
    tag: view.getUint32(at + 4, true),
    flags,
    encoding: view.getUint32(at + 12, true),
    name: name ? text(name, view.getUint32(at + 20, true)) : null,
    byteSize: where(24, FLAG.hasByteSize),
    type: where(32, FLAG.hasType | FLAG.externalType),
    location: where(40, FLAG.hasLocation),
    dataBitOffset: where(48, FLAG.hasDataBitOffset),
    bitOffset: flags & FLAG.hasBitOffset ? view.getBigInt64(at + 56, true) : 0n,
    bitSize: where(64, FLAG.hasBitSize),
    value: where(72, FLAG.hasValue),
    count: where(80, FLAG.hasCount),
  };
}
