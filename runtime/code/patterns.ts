/**
 * Pure functions that find what a function's instructions do with a member of a structure. A member is recognized by
 * its offset from a register; we do not follow which structure the register points to. So a value counts only if all
 * such instructions agree on it, and other functions too.
 */
import type { Code, Instruction, Operand } from './decode.ts';

/** Offset and size of a member in its structure, in bytes. */
export interface MemberPlace {
  readonly offset: number;
  readonly size: number;
}

type MemoryOperand = Extract<Operand, { kind: 'memory' }>;

/** Most instructions between those of one statement. */
const NEAR = 24;

/** Masks that locked instructions set in a member: `set_bit()`, `test_and_set_bit()`, `fetch_or()`. */
export function lockedSets(code: Code, place: MemberPlace): bigint[] {
  return [...code.values()].flatMap((at) => {
    if (!at.locked) return [];
    return at.name === 'cmpxchg' ? computed(code, at, place, 'or') : inPlace(code, at, place, 'or');
  });
}

/** Masks that locked instructions clear in a member (`clear_bit()`); with `target`, only before it is called. */
export function lockedClears(code: Code, place: MemberPlace, target?: bigint): bigint[] {
  return [...code.values()].flatMap((at) =>
    at.locked && (target === undefined || callsSoon(code, at, target)) ? inPlace(code, at, place, 'and') : [],
  );
}

/** Masks that ordinary code sets in a member: in place, or between a load and a store. */
export function plainSets(code: Code, place: MemberPlace): bigint[] {
  return plain(code, place, 'or');
}

/** Masks that ordinary code clears in a member. */
export function plainClears(code: Code, place: MemberPlace): bigint[] {
  return plain(code, place, 'and');
}

/** Constants that are stored to a whole member; with `target`, only before it is called. */
export function stores(code: Code, place: MemberPlace, target?: bigint): bigint[] {
  return [...code.values()].flatMap((at) => {
    const [, from] = at.operands;
    if (at.name !== 'mov' || !isWhole(code, at, place) || from?.kind !== 'immediate') return [];
    if (target !== undefined && !callsSoon(code, at, target)) return [];
    return [BigInt.asUintN(8 * place.size, from.value)];
  });
}

/** Masks that a member is tested against in place. */
export function tests(code: Code, place: MemberPlace): bigint[] {
  return [...code.values()].flatMap((at) => {
    const [memory, mask] = at.operands;
    const shift = at.name === 'test' ? shiftIn(code, at, place) : null;
    return shift === null || mask?.kind !== 'immediate'
      ? []
      : [fit(mask.value, memory as MemoryOperand) << shift];
  });
}

/** Masks that registers are tested against. */
export function registerTests(code: Code): bigint[] {
  return [...code.values()].flatMap(({ name, operands: [register, mask] }) =>
    name === 'test' && register?.kind === 'register' && mask?.kind === 'immediate'
      ? [fit(mask.value, register)]
      : [],
  );
}

/** Constants that registers are compared with. */
export function registerComparisons(code: Code): bigint[] {
  return [...code.values()].flatMap(({ name, operands: [register, value] }) =>
    name === 'cmp' && register?.kind === 'register' && value?.kind === 'immediate' ? [value.value] : [],
  );
}

/** Values v of `(x & mask) == v`. */
export function maskedComparisons(code: Code): bigint[] {
  return [...code.values()].flatMap(({ name, operands: [register, mask], next }) => {
    const compare = code.get(next);
    const [other, value] = compare?.operands ?? [];
    if (name !== 'and' || compare?.name !== 'cmp' || register?.kind !== 'register') return [];
    if (other?.kind !== 'register' || other.register !== register.register) return [];
    return mask?.kind === 'immediate' && value?.kind === 'immediate' ? [value.value] : [];
  });
}

/** Constants in `register` where `target` is called or jumped to. */
export function argumentsOf(code: Code, target: bigint, register: string): bigint[] {
  return givenTo(code, target, register).flatMap(({ operands: [, from] }) =>
    from?.kind === 'immediate' ? [from.value] : [],
  );
}

/** Offsets in the structure that `register` pointed to of what is loaded into it before `target` is called. */
export function argumentPlaces(code: Code, target: bigint, register: string): bigint[] {
  return givenTo(code, target, register).flatMap((load) => {
    const [, from] = load.operands;
    if (from?.kind !== 'memory' || from.size !== 8 || from.base === null) return [];
    return isArgument(code, load, from.base, register) ? [from.displacement] : [];
  });
}

/** Registers that a function leaves to its caller as they were (System V ABI of x86-64, 3.2.1). */
const KEPT: ReadonlySet<string> = new Set(['rbx', 'rbp', 'r12', 'r13', 'r14', 'r15']);

/**
 * Whether the base of a load is the register of an argument that nothing has written, or one that calls keep and that has
 * the argument for the whole function: code that is watched calls a function before each load (KASAN, KCOV).
 */
function isArgument(code: Code, load: Instruction, base: string, register: string): boolean {
  const before = (end: Instruction) => [...code.values()].filter(({ address }) => address < end.address);
  if (base === register) return !before(load).some((at) => writes(at, register));
  if (!KEPT.has(base)) return false;
  const writers = [...code.values()].filter((at) => at.name !== 'pop' && writes(at, base));
  const [copy] = writers;
  const [, from] = copy?.operands ?? [];
  if (writers.length !== 1 || copy!.name !== 'mov' || from?.kind !== 'register') return false;
  return (
    from.register === register && !before(copy!).some((at) => at.flow !== 'next' || writes(at, register))
  );
}

/** The instructions that move something to `register` for a call of `target`, or a jump to it. */
function givenTo(code: Code, target: bigint, register: string): Instruction[] {
  return [...code.values()]
    .filter((call) => call.target === target && call.flow !== 'branch')
    .flatMap((call) => {
      const set = lastWriter(code, call, register);
      return set?.name === 'mov' ? [set] : [];
    });
}

/**
 * Bits of a member, in place or in a register, of which one must be set for `target` to be called. They come from the
 * branches before the call, back to the nearest test for a set bit, without the bits excluded in between.
 */
export function guards(code: Code, target: bigint, place: MemberPlace): bigint[] {
  return conditions(code, target, place).flatMap((tested) => {
    const set = tested.findIndex(({ isSet }) => isSet);
    if (set < 0) return [];
    return [tested.slice(0, set).reduce((mask, { bits }) => mask & ~bits, tested[set]!.bits)];
  });
}

/** Bits that must be clear by the last test before a call of `target`. */
export function exclusions(code: Code, target: bigint, place: MemberPlace): bigint[] {
  return conditions(code, target, place).flatMap(([last]) =>
    last === undefined || last.isSet ? [] : [last.bits],
  );
}

interface BitCondition {
  readonly bits: bigint;
  readonly isSet: boolean;
}

/** The tests on the one path to each call of `target`, the last test first. */
function conditions(code: Code, target: bigint, place: MemberPlace): BitCondition[][] {
  const before = predecessors(code);
  return [...code.values()]
    .filter((call) => call.name === 'call' && call.target === target)
    .map((call) => {
      const found: BitCondition[] = [];
      let at = call;
      for (let step = 0; step < NEAR; step++) {
        const from = before.get(at.address) ?? [];
        if (from.length !== 1) break;
        const [previous] = from;
        if (previous!.flow === 'branch') {
          const bits = testBefore(code, before, previous!, place);
          if (bits === null) break;
          found.push({ bits, isSet: (previous!.target === at.address) === (previous!.name === 'jne') });
        }
        at = previous!;
      }
      return found;
    });
}

/** Bits that `and` clears in a per-CPU variable, with a mask in place or one just loaded into a register. */
export function percpuClears(code: Code, address: bigint): { bits: bigint; size: number }[] {
  return [...code.values()].flatMap((at) => {
    const [memory, from] = at.operands;
    if (at.name !== 'and' || memory?.kind !== 'memory' || memory.place !== 'percpu') return [];
    if (memory.displacement !== address) return [];
    const writer = from?.kind === 'register' ? lastWriter(code, at, from.register) : null;
    const mask = writer?.name === 'mov' ? writer.operands[1] : from;
    if (mask?.kind !== 'immediate') return [];
    return [{ bits: fit(~mask.value, memory), size: memory.size }];
  });
}

/** Constants that are added to registers. */
export function addends(code: Code): bigint[] {
  return [...code.values()].flatMap(({ name, operands: [to, from] }) => {
    if (to?.kind !== 'register') return [];
    if (name === 'add' && from?.kind === 'immediate') return [from.value];
    return name === 'lea' && from?.kind === 'memory' && from.base !== null ? [from.displacement] : [];
  });
}

/** Constants that registers are set to. */
export function moved(code: Code): bigint[] {
  return [...code.values()].flatMap(({ name, operands: [to, from] }) =>
    name === 'mov' && to?.kind === 'register' && from?.kind === 'immediate' ? [from.value] : [],
  );
}

/** Constants that registers are multiplied by. */
export function multipliers(code: Code): bigint[] {
  return [...code.values()].flatMap(({ name, operands }) => {
    const [, , factor] = operands;
    return name === 'imul' && factor?.kind === 'immediate' ? [factor.value] : [];
  });
}

/** Bits that one instruction sets (`or`) or clears (`and`) in a member. */
function inPlace(code: Code, at: Instruction, place: MemberPlace, what: 'or' | 'and'): bigint[] {
  const { name, operands } = at;
  const [memory, value] = operands;
  const shift = shiftIn(code, at, place);
  if (shift === null || value?.kind !== 'immediate') return [];
  const bits = bitsOf(name, value.value, 8 * (memory as MemoryOperand).size, what);
  return bits === null ? [] : [bits << shift];
}

function bitsOf(name: string, value: bigint, width: number, what: 'or' | 'and'): bigint | null {
  if (name === 'or' && what === 'or') return BigInt.asUintN(width, value);
  if (name === 'and' && what === 'and') return BigInt.asUintN(width, ~value);
  if (name === (what === 'or' ? 'bts' : 'btr')) return 1n << (value % BigInt(width));
  return null;
}

function plain(code: Code, place: MemberPlace, what: 'or' | 'and'): bigint[] {
  return [...code.values()].flatMap((at) => {
    if (at.locked) return [];
    return at.name === 'mov' ? computed(code, at, place, what) : inPlace(code, at, place, what);
  });
}

/** Bits that were set or cleared in the register that an instruction stores to a member. */
function computed(code: Code, at: Instruction, place: MemberPlace, what: 'or' | 'and'): bigint[] {
  const [, from] = at.operands;
  if (!isWhole(code, at, place) || from?.kind !== 'register') return [];
  const writer = lastWriter(code, at, from.register);
  const [register, value] = writer?.operands ?? [];
  if (register?.kind !== 'register' || value?.kind !== 'immediate') return [];
  const bits = bitsOf(writer!.name, value.value, 8 * register.size, what);
  return bits === null ? [] : [bits << BigInt(8 * register.from)];
}

/** The nearest instruction before `at`, in memory order, that wrote a register. */
function lastWriter(code: Code, at: Instruction, register: string): Instruction | null {
  const all = [...code.values()];
  const end = all.indexOf(at);
  for (let index = end - 1; index >= Math.max(0, end - NEAR); index--) {
    const candidate = all[index]!;
    if (candidate.next !== all[index + 1]!.address || ['jump', 'end', 'call'].includes(candidate.flow))
      return null;
    if (writes(candidate, register)) return candidate;
  }
  return null;
}

/** Whether an instruction writes a register that it names first, as those do that store somewhere. */
function writes({ name, operands: [to] }: Instruction, register: string): boolean {
  return !READS.has(name) && to?.kind === 'register' && to.register === register;
}

/** Instructions that only read the operand that they name first. */
const READS: ReadonlySet<string> = new Set(['test', 'cmp', 'push']);

/** The mask of the test behind a branch on zero or not zero; null for another kind of branch. */
function testBefore(
  code: Code,
  before: Predecessors,
  branch: Instruction,
  place: MemberPlace,
): bigint | null {
  const [test] = before.get(branch.address) ?? [];
  if (test?.name !== 'test' || (branch.name !== 'je' && branch.name !== 'jne')) return null;
  const [tested, mask] = test.operands;
  if (tested === undefined || tested.kind === 'immediate' || mask?.kind !== 'immediate') return null;
  if (tested.kind === 'register') return fit(mask.value, tested);
  const shift = shiftIn(code, test, place);
  return shift === null ? null : fit(mask.value, tested) << shift;
}

type Predecessors = ReadonlyMap<bigint, readonly Instruction[]>;

function predecessors(code: Code): Map<bigint, Instruction[]> {
  const found = new Map<bigint, Instruction[]>();
  const add = (address: bigint, from: Instruction) =>
    found.set(address, [...(found.get(address) ?? []), from]);
  for (const instruction of code.values())
    for (const address of successors(instruction)) add(address, instruction);
  return found;
}

function successors({ flow, target, next }: Instruction): bigint[] {
  if (flow === 'end') return [];
  if (flow === 'jump') return target === null ? [] : [target];
  return flow === 'branch' ? [next, target!] : [next];
}

/** Whether a function is called on some path within the next instructions. */
function callsSoon(code: Code, from: Instruction, target: bigint): boolean {
  let front = [from];
  const seen = new Set<bigint>();
  for (let step = 0; step < NEAR && front.length > 0; step++) {
    if (front.some((instruction) => instruction.target === target)) return true;
    front = front.flatMap(successors).flatMap((address) => {
      const instruction = seen.has(address) ? undefined : code.get(address);
      seen.add(address);
      return instruction === undefined ? [] : [instruction];
    });
  }
  return false;
}

/**
 * How many bits above the start of a member the memory lies that an instruction writes or tests; null where it is not
 * part of the member. The address may come from a `lea` just before.
 */
function shiftIn(code: Code, at: Instruction, place: MemberPlace): bigint | null {
  const [memory] = at.operands;
  if (memory?.kind !== 'memory' || memory.base === null) return null;
  const pointer = lastWriter(code, at, memory.base);
  const [, pointee] = pointer?.operands ?? [];
  const moved = pointer?.name === 'lea' && pointee?.kind === 'memory' ? pointee.displacement : 0n;
  const from = Number(moved + memory.displacement) - place.offset;
  return from >= 0 && from + memory.size <= place.size ? BigInt(8 * from) : null;
}

function isWhole(code: Code, at: Instruction, place: MemberPlace): boolean {
  const [memory] = at.operands;
  return memory?.kind === 'memory' && memory.size === place.size && shiftIn(code, at, place) === 0n;
}

/** An immediate value cut to the width of its operand and shifted to the operand's place in the register. */
function fit(value: bigint, { size, ...operand }: Exclude<Operand, { kind: 'immediate' }>): bigint {
  const from = operand.kind === 'register' ? operand.from : 0;
  return BigInt.asUintN(8 * size, value) << BigInt(8 * from);
}
