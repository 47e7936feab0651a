import { DomschedError } from '../error.ts';
import { isNamed, printable } from '../guest/text.ts';

/**
 * Finds a domain by id or by name, the name raw or as terminals show it.
 * @returns undefined if no domain matches
 * @throws DomschedError `domain-ambiguous`
 */
export function choose<T>(
  all: readonly T[],
  wanted: string,
  identityOf: (one: T) => { readonly id: string; readonly name: string },
): T | undefined {
  const found = all.filter((one) => isNamed(identityOf(one).name, wanted) || identityOf(one).id === wanted);
  if (found.length <= 1) return found[0];
  const ids = found.map((one) => identityOf(one).id);
  const message = `${ids.length} domains are called ${printable(wanted)}; give one of ${ids.join(', ')}`;
  throw new DomschedError('domain-ambiguous', message, { domain: wanted, ids });
}
