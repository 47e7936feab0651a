import type { MemberLayout } from './types.ts';

/**
 * Number of elements of an array over all its dimensions, 0 for a flexible array. Undefined if it is no array or the
 * debug information does not describe its elements.
 */
export function elementsOf({ kind, dims, element }: MemberLayout): number | undefined {
  if (kind !== 'array' || !dims || !element) return undefined;
  const count = dims.reduce((product, dimension) => product * dimension, 1);
  return Number.isSafeInteger(count) ? count : undefined;
}
