/**
 * The C type graph that engines with machine-readable debug information (DWARF, BTF) pass to `layout.ts`. Nodes may be
 * created lazily, but an engine must return the same object for the same type, so that a walk can detect cycles. Names
 * keep the spelling of the debug information (`long unsigned int`); `layout.ts` converts them.
 */
export type TypeNode =
  | {
      kind: 'base';
      name: string;
      size: number;
      /** `char?` is a character type of unknown sign. */
      encoding: 'signed' | 'unsigned' | 'bool' | 'float' | 'char' | 'uchar' | 'char?';
    }
  | { kind: 'void' }
  | { kind: 'pointer'; size: number; to: TypeRef }
  | { kind: 'typedef'; name: string; of: TypeRef }
  | { kind: 'const' | 'volatile' | 'restrict' | 'atomic'; of: TypeRef }
  | { kind: 'array'; of: TypeRef /** null: unknown bound, a flexible array. */; dims: (number | null)[] }
  | {
      kind: 'function';
      returns: TypeRef;
      parameters: TypeRef[];
      variadic: boolean;
      /** Declared with `()`, so its parameters are unknown. */
      unprototyped?: boolean;
    }
  | RecordNode
  | EnumNode
  /** A declaration without an available definition. */
  | { kind: 'forward'; tag: 'struct' | 'union' | 'enum'; name: string };

export interface RecordNode {
  kind: 'struct' | 'union';
  /** Null for an anonymous type. */
  name: string | null;
  size: number;
  members: GraphMember[];
}

export interface EnumNode {
  kind: 'enum';
  name: string | null;
  size: number;
  /** Null if the debug information does not tell. */
  signed: boolean | null;
  values: [name: string, value: bigint][];
}

export interface GraphMember {
  name: string | null;
  /** Bits from the start of the record that directly contains the member (little-endian numbering). */
  bitOffset: number;
  /** Set for bit fields only. */
  bitSize?: number;
  type: TypeRef;
}

/** Resolves on call, so cyclic types need no patching and unread types cost nothing. */
export type TypeRef = () => TypeNode;

/** A structure and where it was found; `where` names that in messages (unit name, type id). */
export interface FoundRecord {
  node: RecordNode;
  /** The typedef's name, for an anonymous structure that a typedef names (`spinlock_t` of old kernels). */
  typedef?: string;
  where: string;
}
