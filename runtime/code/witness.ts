import type { MemberName, StructName } from '../members/members.ts';
import type { SymbolName } from '../members/symbols.ts';
import type { Code } from './decode.ts';
import type { MemberPlace } from './patterns.ts';

/** Facts about the kernel that a witness may ask for besides the code that it reads. */
export interface Surroundings {
  /** Offset and size of a member. @throws DomschedError `layout-absent-member` */
  place<S extends StructName>(struct: S, member: MemberName<S>): MemberPlace;
  /** Address of a function. @throws DomschedError `refused` if the layout does not have it */
  address(symbol: SymbolName): bigint;
  /** As {@link address}, for a function that not every kernel has. */
  addressIfAny(symbol: SymbolName): bigint | undefined;
  /** Offset of the preemption count in a CPU's own area. */
  readonly preemptCount: bigint;
  /** Value of an earlier row. @throws DomschedError `refused` where it has none */
  value(name: string): bigint;
}

export interface Witness {
  /** Only the first of these that the kernel has is read. */
  readonly functions: readonly SymbolName[];
  /**
   * How the values found relate to the constant. `is`: all are equal to it. `among`: one of them is. `within`: it is
   * part of one of them. `not`: there are some, and none shares a bit with it.
   */
  readonly says: 'is' | 'among' | 'within' | 'not';
  /** For messages: what the code does with the constant. */
  readonly how: string;
  readonly read: (code: Code, kernel: Surroundings) => readonly bigint[];
  /**
   * If the function shows nothing, it is read together with the small functions that it calls: what is `static inline` in
   * the source becomes a function of its own where a compiler is to save space (CONFIG_CC_OPTIMIZE_FOR_SIZE).
   */
  readonly helpers?: true;
  /** Some kernels or compilers lack it, so nothing follows if nothing is found. */
  readonly optional?: true;
}

export interface ConstantRow {
  readonly name: string;
  /** Where the kernel's source defines it, and which change moved it. */
  readonly source: string;
  readonly kind: 'bit' | 'value';
  /**
   * A number of our own choice, or one that processes were already listed by. Its witnesses only confirm it, or rule out
   * that it means anything else to the kernel.
   */
  readonly chosen?: bigint;
  /**
   * A kernel that has neither does not use the constant: it has the value 0 there. A function alone says nothing, since
   * an optimizing linker may have put it into whoever calls it.
   */
  readonly onlyWith?: { readonly symbol: SymbolName; readonly member: MemberName<'task_struct'> };
  readonly witnesses: readonly Witness[];
}
