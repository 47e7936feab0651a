import { DomschedError } from '../error.ts';
import { isNamed, printable } from '../guest/text.ts';
import type { Hosts } from '../hypervisor/connect.ts';
import type { Domain } from '../hypervisor/types.ts';

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

/**
 * Attaches to a domain of some hosts by its name, or by its id if names are ambiguous.
 * @throws DomschedError `domain-not-found`, `domain-ambiguous`, or the reason why the domain cannot be attached to
 */
export async function openDomain(hosts: Hosts, wanted: string): Promise<Domain> {
  const found = choose(await hosts.list(), wanted, ({ listing }) => listing.identity);
  if (found === undefined) throw noSuchDomain(wanted);
  if ('error' in found.listing) throw found.listing.error;
  return found.host.open(found.listing.identity.id);
}

export function noSuchDomain(wanted: string): DomschedError {
  return new DomschedError(
    'domain-not-found',
    `there is no domain ${printable(wanted)}; domsched domains lists those that there are, --connect says where to look`,
    { domain: wanted },
  );
}
