import type { Process } from '../guest/process.ts';
import type { Names } from '../policy/saved-accounts.ts';
import type { WatchedDomain } from '../watch/watched-domain.ts';

/**
 * Names of processes that are valid as long as their guest's boot: keys end with this run of the program. They have an
 * address, so they are for our own files only.
 */
export function lastingNames(domains: ReadonlyMap<string, Pick<WatchedDomain, 'tracker'>>): Names {
  const keys = new Map<string, Map<string, string>>();
  const keysOf = (domain: string) => {
    const found = keys.get(domain) ?? new Map<string, string>();
    if (keys.has(domain)) return found;
    keys.set(domain, found);
    const tracker = domains.get(domain)?.tracker;
    for (const key of tracker?.keys() ?? []) found.set(nameOf(tracker!.process(key)!), key);
    return found;
  };
  return {
    lasting: (domain, key) => {
      const process = domains.get(domain)?.tracker?.process(key);
      return process === undefined ? key : nameOf(process);
    },
    key: (domain, lasting) => keysOf(domain).get(lasting) ?? lasting,
  };
}

function nameOf({ pid, address, startTimeNs }: Process): string {
  return `${pid} ${address.toString(16)} ${startTimeNs}`;
}
