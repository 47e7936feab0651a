import { distance } from 'fastest-levenshtein';
import { CANONICAL_NAMES, canonicalName } from './contract.ts';
import { ExtractError } from './error.ts';

const SUGGESTIONS = 3;

/** Every spelling that a kernel may have for the structure that the user calls `name`. */
export function spellings(name: string): string[] {
  const canonical = canonicalName(name);
  const others = Object.keys(CANONICAL_NAMES).filter((spelling) => CANONICAL_NAMES[spelling] === canonical);
  return [...new Set([canonical, name, ...others])];
}

/**
 * The error for structures that a kernel lacks, with its most similar names.
 *
 * @param missing requested names
 * @param existing every name that the engine has seen
 * @param file named in the message
 */
export function structNotFound(
  missing: readonly string[],
  existing: Iterable<string>,
  file: string,
): ExtractError {
  const names = [...new Set(existing)];
  const parts = missing.map((name) => {
    const near = nearest(name, names);
    return near.length ? `${name} (nearest: ${near.join(', ')})` : name;
  });
  return new ExtractError('struct-not-found', `${file} has no structure ${parts.join('; no structure ')}`, {
    file,
    missing: [...missing],
  });
}

/** The existing names that a typing error or another kernel version may have turned into `name`, best first. */
function nearest(name: string, names: readonly string[]): string[] {
  const limit = Math.max(2, Math.floor(name.length / 2));
  return names
    .map((candidate) => ({ candidate, edits: distance(name, candidate) }))
    .filter(({ edits }) => edits <= limit)
    .sort((a, b) => a.edits - b.edits || (a.candidate < b.candidate ? -1 : 1))
    .slice(0, SUGGESTIONS)
    .map(({ candidate }) => candidate);
}
