import { DomschedError } from '../error.ts';
import { type EnumeratorName, SYMBOLS, type SymbolName } from '../members/symbols.ts';
import { shellWord } from '../shell-word.ts';
import { elementsOf } from './element.ts';
import { Field } from './field.ts';
import type { AnonymousLayout, AnyLayout, KernelFacts, MemberLayout, StructLayout } from './types.ts';

/**
 * The layout of a kernel that is known only at run time. Code for any kernel asks it which members exist, resolves them
 * once to {@link Field}s, and reads through those.
 */
export class LayoutView {
  readonly kernel: KernelFacts;
  /** Canonical names of the structures, in code-unit order. */
  readonly structNames: readonly string[];
  readonly #module: AnyLayout;
  /** Those that somebody has asked for. */
  readonly #structs = new Map<string, StructView>();

  constructor(module: AnyLayout) {
    this.#module = module;
    this.kernel = module.$kernel;
    this.structNames = Object.keys(module).filter((name) => !name.startsWith('$'));
  }

  struct(name: string): StructView | undefined {
    const made = this.#structs.get(name);
    if (made !== undefined || name.startsWith('$') || !Object.hasOwn(this.#module, name)) return made;
    const found = new StructView(this, this.#module[name] as StructLayout);
    this.#structs.set(name, found);
    return found;
  }

  /** @throws DomschedError `layout-absent-member` */
  requireStruct(name: string): StructView {
    const found = this.struct(name);
    if (found) return found;
    throw this.#absent(name, null, `has no structure ${name}`, nearest(name, this.structNames), [name]);
  }

  /** Whether a structure or a member of it by path exists: `has('rq', 'cfs.h_nr_running')`. */
  has(struct: string, path?: string): boolean {
    const found = this.struct(struct);
    return found !== undefined && (path === undefined || found.has(path));
  }

  /**
   * Finds a member by structure and path.
   *
   * @throws DomschedError `layout-absent-member`, naming kernel, structure, member and what to do
   */
  field(struct: string, path: string): Field {
    return this.requireStruct(struct).field(path);
  }

  /** Link-time address; for a per-CPU variable ({@link isPerCpu}), the offset in the per-CPU area. */
  symbol(name: SymbolName): bigint | undefined {
    return own(this.#module.$symbols, name);
  }

  /** @throws DomschedError `layout-absent-member` */
  requireSymbol(name: SymbolName): bigint {
    const address = this.symbol(name);
    if (address !== undefined) return address;
    const { engine } = this.kernel.source;
    throw new DomschedError(
      'layout-absent-member',
      `Kernel ${this.kernel.release}: the layout has no symbol ${name}. ` +
        (engine === 'btf'
          ? 'what it was extracted from says no address of it: extract again with the System.map or the debug file of this kernel.'
          : `Extract the kernel again from a file with its symbol table (this one came from ${this.kernel.source.file}).`),
      { kernel: this.kernel.release, symbol: name },
    );
  }

  isPerCpu(name: string): boolean {
    return this.#module.$percpu.includes(name);
  }

  /** The declared symbols that this kernel has. */
  get symbolNames(): SymbolName[] {
    return SYMBOLS.filter((name) => this.symbol(name) !== undefined);
  }

  constant(name: EnumeratorName): number | undefined {
    return own(this.#module.$constants, name);
  }

  /** Value of an enumerator: `enumerator('pid_type', 'PIDTYPE_PID')`. */
  enumerator(tag: string, name: string): number | bigint | undefined {
    const found = own(this.#module.$enums, tag);
    return found && own(found.values, name);
  }

  /** @internal The error for a member that this kernel lacks. */
  absentMember(
    struct: StructView,
    path: string,
    why: string,
    near: string[],
    extract: string[] = [],
  ): DomschedError {
    return this.#absent(struct.name, path, why, near, extract);
  }

  #absent(
    struct: string,
    path: string | null,
    why: string,
    near: string[],
    extract: string[],
  ): DomschedError {
    const { release, source } = this.kernel;
    const hint = near.length > 0 ? ` (near it: ${near.join(', ')})` : '';
    const todo =
      extract.length > 0
        ? `Extract it with: domsched extract ${shellWord(source.file)} ${extract.map((name) => `--struct ${name}`).join(' ')}`
        : 'This kernel keeps the fact elsewhere or not at all: what asked for it does not work on this kernel.';
    return new DomschedError('layout-absent-member', `Kernel ${release}: the layout ${why}${hint}. ${todo}`, {
      kernel: release,
      buildId: this.kernel.buildId,
      struct,
      member: path,
    });
  }
}

/** One structure of a {@link LayoutView}. */
export class StructView {
  readonly name: string;
  /** The kernel's own spelling. */
  readonly sourceName: string;
  readonly kind: 'struct' | 'union';
  /** Bytes. */
  readonly size: number;
  readonly anonymous: readonly AnonymousLayout[];
  readonly #layout: LayoutView;
  readonly #members = new Map<string, MemberLayout>();

  constructor(layout: LayoutView, struct: StructLayout) {
    this.#layout = layout;
    this.name = struct.$name;
    this.sourceName = struct.$sourceName;
    this.kind = struct.$kind;
    this.size = struct.$size;
    this.anonymous = struct.$anonymous ?? [];
    for (const [name, value] of Object.entries(struct)) {
      if (!name.startsWith('$')) this.#members.set(name, value as MemberLayout);
    }
  }

  /** Members in declaration order, including those of anonymous structs and unions. */
  get members(): ReadonlyMap<string, MemberLayout> {
    return this.#members;
  }

  has(path: string): boolean {
    return this.member(path) !== undefined;
  }

  /**
   * Finds a member by path: names separated by dots lead through embedded structures, `[n]` into arrays, as in
   * `arrays[1].queue[139].next`. Undefined if this kernel has no such member.
   */
  member(path: string): Field | undefined {
    const found = this.#resolve(path);
    return found instanceof Field ? found : undefined;
  }

  /** Like {@link member}. @throws DomschedError `layout-absent-member` */
  field(path: string): Field {
    const found = this.#resolve(path);
    if (found instanceof Field) return found;
    throw this.#layout.absentMember(this, path, found.why, found.near, found.extract);
  }

  #resolve(path: string): Field | Absent {
    let members = this.#members as ReadonlyMap<string, MemberLayout>;
    let inside = `${this.kind} ${this.name}`;
    let base = 0;
    const steps = path.split('.');
    for (const [depth, step] of steps.entries()) {
      const [, name, indexText] = /^([^[\]]+)(?:\[([0-9]{1,10})\])?$/.exec(step) ?? [];
      const member = name === undefined ? undefined : members.get(name);
      if (!member) return absent(`has no member ${step} in ${inside}`, nearest(step, [...members.keys()]));
      const index = indexText === undefined ? undefined : Number(indexText);
      const count = elementsOf(member);
      if (index !== undefined && (count === undefined || (count !== 0 && index >= count))) {
        return absent(`has no element ${index} of ${name} (${member.type}) in ${inside}`);
      }
      const offset = index === undefined ? member.offset : member.offset + member.element!.size * index;
      if (depth === steps.length - 1) {
        const facts = { name: `${this.name}.${path}`, offset: base + offset, member };
        return new Field(index === undefined ? facts : { ...facts, index });
      }
      if (member.kind === 'array' && index === undefined) {
        return absent(`has an array ${name} (${member.type}) in ${inside}: name an element, ${name}[0]`);
      }
      if (member.members) {
        // Members of an unnamed type have offsets from the structure's start, within the first element of the array.
        base += offset - member.offset;
        members = new Map(Object.entries(member.members));
        inside = `${inside}.${name}`;
        continue;
      }
      const embedded = member.struct === undefined ? undefined : this.#layout.struct(member.struct);
      if (!embedded) {
        return member.struct === undefined
          ? absent(`has ${name} (${member.type}) in ${inside}, which has no members to go into`)
          : absent(`does not hold ${member.struct}, which ${name} in ${inside} embeds`, [], [member.struct]);
      }
      base += offset;
      members = embedded.members;
      inside = `${embedded.kind} ${embedded.name}`;
    }
    return absent(`has no member in ${inside} without a name`);
  }
}

interface Absent {
  why: string;
  near: string[];
  extract: string[];
}

function absent(why: string, near: string[] = [], extract: string[] = []): Absent {
  return { why, near, extract };
}

/** Up to three names that share a word with the requested one, most words first. */
function nearest(name: string, names: readonly string[]): string[] {
  const words = new Set(name.split(/[^a-z0-9]+/i).filter((word) => word.length > 1));
  const scored = names.map((candidate) => ({
    candidate,
    score: candidate.split('_').filter((word) => words.has(word)).length,
  }));
  return scored
    .filter(({ score }) => score > 0)
    .sort((a, b) => b.score - a.score)
    .slice(0, 3)
    .map(({ candidate }) => candidate);
}

function own<T>(record: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}
