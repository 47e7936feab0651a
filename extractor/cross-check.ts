import type { EngineName, Enumeration, Structure, StructureMember } from './contract.ts';
import type { KernelFile } from './elf/kernel-file.ts';
import type { EngineResult, ExtractRequest, Unknowable } from './engine.ts';
import { ENGINE_NAMES, loadEngine } from './engines.ts';
import { ExtractError } from './error.ts';

/** What two engines say about one fact. */
export interface Disagreement {
  /** `rq.lock`, `enum pid_type.PIDTYPE_PID`. */
  where: string;
  property: string;
  first: string;
  second: string;
}

/** A fact from one engine that the other engine's kind of debug information cannot contain. */
export interface NotCompared extends Disagreement {
  because: Unknowable;
}

/** The comparison of two engines' results. */
export interface Comparison {
  disagreements: Disagreement[];
  notCompared: NotCompared[];
}

/** One row of the table: an engine compared with the first one, or why it was not compared. */
export interface EngineComparison extends Comparison {
  engine: EngineName;
  /** The engine it was compared with; null for the first and for those that cannot read the file. */
  against: EngineName | null;
  /** Why the engine cannot read the file; null if it can. */
  unavailable: string | null;
  structs: number;
  members: number;
  enumerators: number;
  /** Wall time of the engine, in ms. */
  ms: number;
}

/**
 * Runs every engine that can read the file and compares its result with the first one's, member by member.
 * @throws ExtractError `no-debug-information` if no engine can read it, `engine-unavailable` if only one can; what an
 *   engine throws
 */
export async function crossCheck(file: KernelFile, request: ExtractRequest): Promise<EngineComparison[]> {
  const rows: EngineComparison[] = [];
  let first: { engine: EngineName; result: EngineResult } | null = null;
  for (const name of ENGINE_NAMES) {
    request.signal?.throwIfAborted();
    const engine = await loadEngine(name);
    const row: EngineComparison = {
      engine: name,
      against: null,
      unavailable: await engine.unavailable(file, request),
      structs: 0,
      members: 0,
      enumerators: 0,
      ms: 0,
      disagreements: [],
      notCompared: [],
    };
    rows.push(row);
    if (row.unavailable !== null) continue;
    const start = performance.now();
    const result = await engine.extract(file, request);
    row.ms = Math.round(performance.now() - start);
    row.structs = Object.keys(result.structs).length;
    row.members = Object.values(result.structs).reduce((sum, { members }) => sum + countMembers(members), 0);
    row.enumerators = Object.values(result.enums).reduce(
      (sum, { values }) => sum + Object.keys(values).length,
      0,
    );
    if (first) {
      row.against = first.engine;
      Object.assign(row, compareResults(first.result, result));
    } else first = { engine: name, result };
  }
  if (!rows.some(({ against }) => against)) {
    const reasons = rows
      .filter(({ unavailable }) => unavailable)
      .map((row) => `${row.engine}: ${row.unavailable}`);
    throw new ExtractError(
      first ? 'engine-unavailable' : 'no-debug-information',
      `${file.path} can be read by ${first ? 'one engine only' : 'no engine'}, so there is nothing to compare ` +
        `(${reasons.join('; ')})`,
      { file: file.path },
    );
  }
  return rows;
}

/** Every fact on which two engines differ, and those that one of them cannot know. */
export function compareResults(first: EngineResult, second: EngineResult): Comparison {
  const comparer = new Comparer([...(first.unknowable ?? []), ...(second.unknowable ?? [])]);
  comparer.compare(first, second);
  return comparer.found;
}

type FactValue = string | number | boolean | null | undefined;

const COMPARED = [
  'name',
  'offset',
  'size',
  'bitOffset',
  'bitSize',
  'kind',
  'struct',
  'enum',
  'target',
] as const;

class Comparer {
  readonly found: Comparison = { disagreements: [], notCompared: [] };
  readonly #unknowable: ReadonlySet<Unknowable>;

  constructor(unknowable: Iterable<Unknowable>) {
    this.#unknowable = new Set(unknowable);
  }

  compare(first: EngineResult, second: EngineResult): void {
    for (const [name, a, b] of pairs(first.structs, second.structs)) {
      if (!a || !b) this.#presence(name, a, b);
      else this.#structures(a, b);
    }
    for (const [name, a, b] of pairs(first.enums, second.enums)) {
      if (!a || !b) this.#presence(`enum ${name}`, a, b);
      else this.#enumerations(`enum ${name}`, a, b);
    }
    if (!first.constants || !second.constants) return;
    // C's enumerators are ints; nothing more is known about these.
    for (const [name, a, b] of pairs(first.constants, second.constants)) this.#value(name, 4, a, b);
  }

  #structures(a: Structure, b: Structure): void {
    for (const property of ['sourceName', 'kind', 'size'] as const) {
      this.#property(a.name, property, a[property], b[property]);
    }
    this.#members(a.name, a.members, b.members);
  }

  #enumerations(where: string, a: Enumeration, b: Enumeration): void {
    this.#property(where, 'size', a.size, b.size);
    for (const [key, x, y] of pairs(a.values, b.values)) this.#value(`${where}.${key}`, a.size, x, y);
  }

  #value(where: string, size: number, a?: number | string, b?: number | string): void {
    const known = a !== undefined && b !== undefined;
    const bits = (value: number | string) => BigInt.asUintN(size * 8, BigInt(value));
    this.#property(where, 'value', a, b, known && bits(a) === bits(b) ? ['enum-sign'] : []);
  }

  #members(path: string, a: readonly StructureMember[], b: readonly StructureMember[]): void {
    for (let index = 0; index < Math.max(a.length, b.length); index++) {
      const [x, y] = [a[index], b[index]];
      const where = `${path}.${x?.name ?? y?.name ?? `<${index}>`}`;
      if (!x || !y) this.#presence(where, x, y);
      else this.#member(where, x, y);
    }
  }

  #member(where: string, a: StructureMember, b: StructureMember): void {
    for (const property of COMPARED) this.#property(where, property, a[property], b[property]);
    const oneKnows = (a.signed === undefined) !== (b.signed === undefined);
    const sign = (a.element ?? a).kind === 'enum' ? 'enum-sign' : 'char-sign';
    this.#property(where, 'signed', a.signed, b.signed, oneKnows ? [sign] : []);
    this.#property(where, 'type', a.type, b.type, typeExcuses(a.type, b.type));
    const [x, y] = [a.dims?.join(), b.dims?.join()];
    this.#property(where, 'elements', x, y, elements(a) === elements(b) ? ['dimensions'] : []);
    this.#property(where, 'element.kind', a.element?.kind, b.element?.kind);
    this.#property(where, 'element.size', a.element?.size, b.element?.size);
    this.#members(where, a.members ?? [], b.members ?? []);
  }

  /** @param excuses reasons why the two may differ; any that an engine claims for itself counts */
  #property(
    where: string,
    property: string,
    a: FactValue,
    b: FactValue,
    excuses: readonly Unknowable[] = [],
  ): void {
    if (a === b) return;
    const difference = { where, property, first: String(a ?? 'none'), second: String(b ?? 'none') };
    if (excuses.length > 0 && excuses.every((excuse) => this.#unknowable.has(excuse))) {
      this.found.notCompared.push({ ...difference, because: excuses[0]! });
    } else this.found.disagreements.push(difference);
  }

  #presence(where: string, a: unknown, b: unknown): void {
    this.#property(where, 'presence', a ? 'present' : 'absent', b ? 'present' : 'absent');
  }
}

/** What to remove from a type's spelling if it cannot be known, in order of removal. */
const LEFT_OUT: readonly (readonly [Unknowable, (type: string) => string])[] = [
  [
    'dimensions',
    (type) => type.replace(/(?:\[\d*\]){2,}/g, (dims) => `[${product(dims.match(/\d+/g) ?? [])}]`),
  ],
  ['array-bounds', (type) => type.replaceAll('[0]', '[]')],
  ['prototypes', (type) => type.replaceAll('(void)', '()')],
  ['atomics', (type) => type.replaceAll('_Atomic ', '')],
];

/** What must be unknowable for two spellings to mean one type; none if they mean two. */
function typeExcuses(a: string, b: string): Unknowable[] {
  const excuses: Unknowable[] = [];
  let [x, y] = [a, b];
  for (const [excuse, leaveOut] of LEFT_OUT) {
    if (x === y) break;
    const [withoutX, withoutY] = [leaveOut(x), leaveOut(y)];
    if (withoutX !== x || withoutY !== y) excuses.push(excuse);
    [x, y] = [withoutX, withoutY];
  }
  return x === y ? excuses : [];
}

function elements({ dims }: StructureMember): number | undefined {
  return dims && product(dims);
}

function product(factors: readonly (number | string)[]): number {
  return factors.reduce<number>((result, factor) => result * Number(factor), 1);
}

function* pairs<T>(
  a: Record<string, T>,
  b: Record<string, T>,
): Generator<[name: string, T | undefined, T | undefined]> {
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    yield [name, Object.hasOwn(a, name) ? a[name] : undefined, Object.hasOwn(b, name) ? b[name] : undefined];
  }
}

function countMembers(members: readonly StructureMember[]): number {
  return members.reduce((sum, member) => sum + 1 + countMembers(member.members ?? []), 0);
}
