/**
 * Constants of the BPF Type Format, from the kernel's Documentation/bpf/btf.rst and include/uapi/linux/btf.h. All
 * fields are little-endian 32-bit words on x86-64.
 */
export const BTF_MAGIC = 0xeb9f;
export const BTF_VERSION = 1;
/** Bytes of the header's fixed part; `hdr_len` may be larger in a later version. */
export const BTF_HEADER_SIZE = 24;
/** Bytes of `struct btf_type`. */
export const BTF_TYPE_SIZE = 12;
/** Bytes of `struct btf_layout`, one per kind. */
export const BTF_LAYOUT_SIZE = 4;

export const KIND = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const;

/** Bytes that follow a `struct btf_type`: a fixed part, and a part for each of `vlen` entries. */
export type Trailer = readonly [fixed: number, each: number];

/** Indexed by kind. */
export const TRAILER: readonly (Trailer | undefined)[] = [
  undefined,
  [4, 0], // INT
  [0, 0], // PTR
  [12, 0], // ARRAY
  [0, 12], // STRUCT
  [0, 12], // UNION
  [0, 8], // ENUM
  [0, 0], // FWD
  [0, 0], // TYPEDEF
  [0, 0], // VOLATILE
  [0, 0], // CONST
  [0, 0], // RESTRICT
  [0, 0], // FUNC: its vlen is a linkage, not a count
  [0, 8], // FUNC_PROTO
  [4, 0], // VAR
  [0, 12], // DATASEC
  [0, 0], // FLOAT
  [4, 0], // DECL_TAG
  [0, 0], // TYPE_TAG
  [0, 12], // ENUM64
];

/**
 * Parts of a type's `info`. "bpf: Extend BTF UAPI vlen, kinds to use unused bits", 7.1-rc1, gave kind two and vlen eight
 * bits that were 0 before.
 */
export const kindOf = (info: number): number => (info >>> 24) & 0x7f;
export const vlenOf = (info: number): number => info & 0xff_ffff;
export const flagOf = (info: number): boolean => info >>> 31 === 1;

export const INT_SIGNED = 1;
export const INT_CHAR = 2;
export const INT_BOOL = 4;
