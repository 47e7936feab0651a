import type { MemberLayout } from './types.ts';

/**
 * Elements of an array over all its dimensions, 0 for a flexible array. Undefined for what is none, or whose elements
 * the debug information does not describe.
 */
export function elementsOf({ kind, dims, element }: MemberLayout): number | undefined {
  if (kind !== 'array' || !dims || !element) return undefined;
  const count = dims.reduce((product, dimension) => product * dimension, 1);
  return Number.isSafeInteger(count) ? count : undefined;
}
