/** What a member means to its readers. The role decides the type that a layout resolves the member to. */
export type Role =
  /** A number or bit field, or a structure around one (`atomic_t`). */
  | 'number'
  /** A pointer, or a word that holds one beside flags. */
  | 'pointer'
  /** A `list_head`, as a node or as the head. */
  | 'list'
  /** A spinlock, in any form that a kernel has. */
  | 'lock'
  /** Bytes that are read as a whole, such as a name or an array. */
  | 'block'
  /** An embedded structure; only its place matters. */
  | 'part';

/** A member: its role, and its paths in different kernels. The first path that a kernel has counts. */
export interface MemberDeclaration<R extends Role = Role> {
  readonly role: R;
  readonly paths: readonly string[];
}

function declare<R extends Role>(role: R): (...paths: string[]) => MemberDeclaration<R> {
  return (...paths) => ({ role, paths });
}

export const number = declare('number');
export const pointer = declare('pointer');
export const list = declare('list');
export const lock = declare('lock');
export const block = declare('block');
export const part = declare('part');

/** Members that have the same name in all kernels. */
export function each<R extends Role, N extends string>(
  role: R,
  ...names: N[]
): Record<N, MemberDeclaration<R>> {
  const members: Partial<Record<N, MemberDeclaration<R>>> = {};
  for (const name of names) members[name] = { role, paths: [name] };
  return members as Record<N, MemberDeclaration<R>>;
}
