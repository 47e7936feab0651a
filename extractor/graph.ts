/**
 * The C type graph that engines with machine-readable debug information (DWARF, BTF) hand to `layout.ts`.
 * Nodes may be produced lazily; an engine must return the same object for the same type, so that a walk can
 * tell a cycle. Names are the debug information's own spelling (`long unsigned int`); `layout.ts` renders them.
 */
export type TypeNode =
  | {
      kind: 'base';
      name: string;
      size: number;
      /** `char?` is a character of unknown sign. */
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
      /** Declared with `()`, so that nothing is known of its parameters. */
      unprototyped?: boolean;
    }
  | RecordNode
  | EnumNode
  /** A declaration without a definition in reach. */
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
  /** Null where the debug information does not say. */
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

/** Resolves on call, so that cyclic types need no patching and unread types cost nothing. */
export type TypeRef = () => TypeNode;

/** Where a structure was found; `where` names it in messages (unit name, type id). */
export interface FoundRecord {
  node: RecordNode;
  /** For an anonymous structure that a typedef names (`spinlock_t` of old kernels): the typedef's name. */
  typedef?: string;
  where: string;
}
