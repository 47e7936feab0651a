import type { Role } from './declare.ts';
import * as queue from './queue.ts';
import * as task from './task.ts';

/** Every kernel structure that the runtime reads, by canonical name, with the members that it reads. */
export const MEMBERS = { ...task, ...queue };

export type StructName = keyof typeof MEMBERS;
export type MemberName<S extends StructName> = keyof (typeof MEMBERS)[S] & string;

/** The role that a member was declared with. */
export type RoleOf<S extends StructName, M extends MemberName<S>> = (typeof MEMBERS)[S][M] extends {
  readonly role: infer R extends Role;
}
  ? R
  : never;
