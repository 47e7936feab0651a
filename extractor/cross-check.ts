import type { EngineName, Member, Structure } from './contract.ts';
import type { KernelFile } from './elf/kernel-file.ts';
import type { EngineResult, Request } from './engine.ts';
import { ENGINE_NAMES, loadEngine } from './engines.ts';
import { ExtractError } from './error.ts';

/** What two engines say of one fact. */
export interface Disagreement {
  /** `rq.lock`, `enum pid_type.PIDTYPE_PID`. */
  where: string;
  property: string;
  first: string;
  second: string;
}

/** One row of the table: an engine compared with the first one, or the reason why it was not. */
export interface EngineComparison {
  engine: EngineName;
  /** The engine it was compared with; null for the first and for those that cannot read the file. */
  against: EngineName | null;
  /** Why the engine cannot read the file; null where it can. */
  unavailable: string | null;
  structs: number;
  members: number;
  enumerators: number;
  /** Wall time of the engine, in ms. */
  ms: number;
  disagreements: Disagreement[];
}

/**
 * Runs every engine that can read the file and compares what they say, member by member, with the first's.
 * @throws ExtractError `no-debug-information` when fewer than two engines can read it; what an engine throws
 */
export async function crossCheck(file: KernelFile, request: Request): Promise<EngineComparison[]> {
  const rows: EngineComparison[] = [];
  let first: { engine: EngineName; result: EngineResult } | null = null;
  for (const name of ENGINE_NAMES) {
    request.signal?.throwIfAborted();
    const engine = await loadEngine(name);
    const row: EngineComparison = {
      engine: name,
      against: null,
      unavailable: await engine.unavailable(file),
      structs: 0,
      members: 0,
      enumerators: 0,
      ms: 0,
      disagreements: [],
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
      row.disagreements = compareResults(first.result, result);
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

/** Every fact on which two engines differ. */
export function compareResults(first: EngineResult, second: EngineResult): Disagreement[] {
  const found: Disagreement[] = [];
  for (const [name, a, b] of pairs(first.structs, second.structs)) {
    if (!a || !b) found.push(presence(name, a, b));
    else compareStructures(a, b, found);
  }
  for (const [name, a, b] of pairs(first.enums, second.enums)) {
    if (!a || !b) {
      found.push(presence(`enum ${name}`, a, b));
      continue;
    }
    compareProperty(`enum ${name}`, 'size', a.size, b.size, found);
    for (const [key, x, y] of pairs(a.values, b.values)) {
      compareProperty(`enum ${name}.${key}`, 'value', x, y, found);
    }
  }
  if (first.constants && second.constants) {
    for (const [name, a, b] of pairs(first.constants, second.constants)) {
      compareProperty(name, 'value', a, b, found);
    }
  }
  return found;
}

function compareStructures(a: Structure, b: Structure, found: Disagreement[]): void {
  for (const property of ['sourceName', 'kind', 'size'] as const) {
    compareProperty(a.name, property, a[property], b[property], found);
  }
  compareMembers(a.name, a.members, b.members, found);
}

function compareMembers(path: string, a: Member[], b: Member[], found: Disagreement[]): void {
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const [x, y] = [a[index], b[index]];
    const where = `${path}.${x?.name ?? y?.name ?? `<${index}>`}`;
    if (!x || !y) found.push(presence(where, x, y));
    else compareMember(where, x, y, found);
  }
}

const COMPARED = [
  'name',
  'offset',
  'size',
  'bitOffset',
  'bitSize',
  'kind',
  'signed',
  'struct',
  'enum',
  'target',
] as const;

function compareMember(where: string, a: Member, b: Member, found: Disagreement[]): void {
  for (const property of COMPARED) compareProperty(where, property, a[property], b[property], found);
  compareProperty(where, 'type', comparableType(a.type), comparableType(b.type), found);
  compareProperty(where, 'elements', elements(a), elements(b), found);
  compareProperty(where, 'element.kind', a.element?.kind, b.element?.kind, found);
  compareProperty(where, 'element.size', a.element?.size, b.element?.size, found);
  compareMembers(where, a.members ?? [], b.members ?? [], found);
}

/**
 * What all engines can tell of a type: pahole's BTF has one dimension for `[2][7]`, does not tell `[0]` from `[]` or
 * `()` from `(void)`, and leaves `_Atomic` out.
 */
function comparableType(type: string): string {
  return type
    .replace(/(?:\[\d*\]){2,}/g, (dims) => `[${product(dims.match(/\d+/g) ?? [])}]`)
    .replaceAll('[0]', '[]')
    .replaceAll('(void)', '()')
    .replaceAll('_Atomic ', '');
}

function elements({ dims }: Member): number | undefined {
  return dims && product(dims);
}

function product(factors: readonly (number | string)[]): number {
  return factors.reduce<number>((result, factor) => result * Number(factor), 1);
}

function compareProperty(
  where: string,
  property: string,
  a: string | number | boolean | null | undefined,
  b: string | number | boolean | null | undefined,
  found: Disagreement[],
): void {
  if (a !== b) found.push({ where, property, first: String(a ?? 'none'), second: String(b ?? 'none') });
}

function presence(where: string, a: unknown, b: unknown): Disagreement {
  return { where, property: 'presence', first: a ? 'present' : 'absent', second: b ? 'present' : 'absent' };
}

function* pairs<T>(
  a: Record<string, T>,
  b: Record<string, T>,
): Generator<[name: string, T | undefined, T | undefined]> {
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    yield [name, Object.hasOwn(a, name) ? a[name] : undefined, Object.hasOwn(b, name) ? b[name] : undefined];
  }
}

function countMembers(members: readonly Member[]): number {
  return members.reduce((sum, member) => sum + 1 + countMembers(member.members ?? []), 0);
}
