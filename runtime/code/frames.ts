/**
 * Describes frames of a kernel stack by the code that made them: where a function is when one of its calls returns, and
 * how far above that its own return address lies. A stack can thus be followed frame by frame, and left-overs of
 * interrupts in between are never read.
 */
import type { Code, Instruction } from './decode.ts';
import type { MemberPlace } from './patterns.ts';

/** Maps the return addresses of a function's calls to the bytes from the stack pointer to its own return address. */
export type Returns = ReadonlyMap<bigint, number>;

/**
 * Finds where a function continues when its calls of `target` return.
 * @param entry address of the function
 */
export function returnsFrom(code: Code, entry: bigint, target: bigint): Returns {
  const found = new Map<bigint, number>();
  const depths = depthsIn(code, entry);
  for (const call of code.values()) {
    const depth = depths.get(call.address);
    if (call.flow === 'call' && call.target === target && depth !== undefined && depth !== null)
      found.set(call.next, depth);
  }
  return found;
}

/**
 * Bytes from the stack pointer to the function's own return address where it stores that pointer in a structure.
 * @returns null where it does not store it, or at different depths
 */
export function depthAtSave(code: Code, entry: bigint, place: MemberPlace): number | null {
  const depths = depthsIn(code, entry);
  const found = [...code.values()].filter(
    ({ name, operands: [to, from] }) =>
      name === 'mov' &&
      to?.kind === 'memory' &&
      to.displacement === BigInt(place.offset) &&
      from?.kind === 'register' &&
      from.register === 'rsp',
  );
  return found.length === 1 ? (depths.get(found[0]!.address) ?? null) : null;
}

/** Bytes pushed before each instruction, the same on every path; null where paths differ or it is unknown. */
function depthsIn(code: Code, entry: bigint): Map<bigint, number | null> {
  const depths = new Map<bigint, number | null>([[entry, 0]]);
  const open = [entry];
  while (open.length > 0) {
    const at = code.get(open.pop()!);
    if (at === undefined) continue;
    const depth = depths.get(at.address)!;
    const pushed = pushedBy(at);
    const after = depth === null || pushed === null ? null : depth + pushed;
    for (const next of after === null || after >= 0 ? successors(at) : []) {
      const known = depths.get(next);
      if (known === after || known === null) continue;
      depths.set(next, known === undefined ? after : null);
      open.push(next);
    }
  }
  return depths;
}

/** Bytes by which an instruction moves the stack pointer down; null for one that sets it. */
function pushedBy({ name, operands: [to, value] }: Instruction): number | null {
  const isStack = to?.kind === 'register' && to.register === 'rsp';
  if (name === 'leave' || name === 'enter') return null;
  if (name.startsWith('push')) return 8;
  if (name.startsWith('pop') && name !== 'popcnt') return isStack ? null : -8;
  if (!isStack || name === 'cmp' || name === 'test') return 0;
  if (value?.kind !== 'immediate') return null;
  const bytes = Number(BigInt.asIntN(64, value.value));
  if (name === 'sub') return bytes;
  return name === 'add' ? -bytes : null;
}

function successors({ flow, target, next }: Instruction): bigint[] {
  if (flow === 'end') return [];
  if (flow === 'jump') return target === null ? [] : [target];
  return flow === 'branch' ? [next, target!] : [next];
}
