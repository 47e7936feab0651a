import type { CombinedMemory, PlacedPolicy } from './combine.ts';
import type { GuaranteeMemory } from './guarantee.ts';
import type { ShareMemory } from './proportional-share.ts';

/** What a group has had, as one daemon leaves it to the next. */
export interface SavedGroup {
  readonly domain: string;
  /** The group's name; of a process its {@link Names.lasting} name. */
  readonly name: string;
  readonly hadMs: number;
  readonly held: boolean;
}

/** Accounts that outlive a daemon. */
export interface SavedAccounts {
  readonly policies: readonly {
    readonly name: string;
    /** The policy's configuration: with other weights the numbers mean something else. */
    readonly configuration: string;
    readonly groups: readonly SavedGroup[];
  }[];
  readonly guarantees: readonly (GuaranteeMemory & { readonly domain: string })[];
}

/** Keys of processes are valid within one run of the program; another one needs lasting names. */
export interface Names {
  /** The name of a process of this domain that has this key; a key of something else is its own name. */
  lasting(domain: string, key: string): string;
  key(domain: string, lasting: string): string;
}

/** More groups than this are not saved; the others start level with the one that has had least. */
const MOST_GROUPS = 5_000;

/** The accounts of policies that have one, and what domains are owed. */
export function saveAccounts(
  entries: readonly PlacedPolicy[],
  memory: CombinedMemory,
  names: Pick<Names, 'lasting'>,
): SavedAccounts {
  return {
    policies: entries.flatMap(({ name, account }) => {
      const share = memory.policies[name] as ShareMemory | undefined;
      if (account === undefined || share === undefined) return [];
      const held = new Set(share.held);
      const groups = share.wanting.slice(0, MOST_GROUPS).flatMap((group) => {
        const domain = share.places[group];
        if (domain === undefined) return [];
        return {
          domain,
          name: names.lasting(domain, group),
          hadMs: share.had[group]!,
          held: held.has(group),
        };
      });
      return [{ name, configuration: account, groups }];
    }),
    guarantees: Object.entries(memory.accounts).map(([domain, account]) => ({
      ...account,
      domain,
      members: account.members.slice(0, MOST_GROUPS).map((key) => names.lasting(domain, key)),
    })),
  };
}

/**
 * Goes on where an earlier daemon stood. What has been charged since the start is added.
 * @param isSame whether a domain is still the one that was saved: the same boot of the same guest
 */
export function resumeAccounts(
  entries: readonly PlacedPolicy[],
  memory: CombinedMemory,
  saved: SavedAccounts,
  names: Pick<Names, 'key'>,
  isSame: (domain: string) => boolean,
): CombinedMemory {
  const policies = { ...memory.policies };
  for (const { name, configuration, groups } of saved.policies) {
    if (entries.find((entry) => entry.name === name)?.account !== configuration) continue;
    const valid = groups
      .filter(({ domain }) => isSame(domain))
      .map((group) => ({ ...group, name: names.key(group.domain, group.name) }));
    policies[name] = resumed(policies[name] as ShareMemory | undefined, valid);
  }
  const accounts = { ...memory.accounts };
  for (const { domain, owedMs, slice, members } of saved.guarantees) {
    if (!isSame(domain)) continue;
    const now = accounts[domain];
    const keys = members.map((member) => names.key(domain, member));
    accounts[domain] = {
      owedMs: owedMs + (now?.owedMs ?? 0),
      slice,
      members: [...new Set([...keys, ...(now?.members ?? [])])],
    };
  }
  return { ...memory, policies, accounts };
}

function resumed(now: ShareMemory | undefined, groups: readonly SavedGroup[]): ShareMemory {
  const had: Record<string, number> = { ...now?.had };
  // Who is new since then starts level, as it would have in the earlier daemon.
  const level = groups.length === 0 ? 0 : Math.min(...groups.map(({ hadMs }) => hadMs));
  for (const name of Object.keys(had)) had[name]! += level;
  for (const { name, hadMs } of groups) had[name] = hadMs + (now?.had[name] ?? 0);
  const names = groups.map(({ name }) => name);
  return {
    waiting: now?.waiting ?? [],
    had,
    places: { ...Object.fromEntries(groups.map(({ name, domain }) => [name, domain])), ...now?.places },
    wanting: [...new Set([...names, ...(now?.wanting ?? [])])],
    held: groups.filter(({ held }) => held).map(({ name }) => name),
  };
}
