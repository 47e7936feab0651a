import { DomschedError } from '../error.ts';
import { isNamed, printable } from '../guest/text.ts';
import type { HostListing, Hosts } from '../hypervisor/connect.ts';
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
 * Finds the domain with this name or id.
 * @throws DomschedError `domain-not-found`, `domain-ambiguous`; the error of a domain that hides even its name
 */
export function theOne(listings: readonly HostListing[], wanted: string): HostListing {
  const found = choose(listings, wanted, ({ listing }) => listing.identity);
  if (found !== undefined) return found;
  // A domain with an unreadable name may be the wanted one.
  for (const { listing } of listings) if ('error' in listing) throw listing.error;
  throw new DomschedError(
    'domain-not-found',
    `there is no domain ${printable(wanted)}; domsched domains lists those that there are, --connect says where to look`,
    { domain: wanted },
  );
}

/**
 * Attaches to a domain of some hosts by its name, or by its id if names are ambiguous.
 * @throws DomschedError as {@link theOne}, or the reason why the domain cannot be attached to
 */
export async function openDomain(hosts: Hosts, wanted: string): Promise<Domain> {
  const { host, listing } = theOne(await hosts.list(), wanted);
  if ('error' in listing) throw listing.error;
  return host.open(listing.identity.id);
}
