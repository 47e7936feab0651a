import type { BlameShare } from '../blame/blame.ts';
import type { BlameNote } from '../blame/notes.ts';
import { permilles } from '../blame/split.ts';
import type { BlameFound } from '../fleet/blame-word.ts';
import { plainName, printable } from '../guest/text.ts';
import { waitedAt } from './blame-entry.ts';

/** What one host found, with shares that add up. */
export interface HostBlame {
  readonly host: string;
  readonly version: string;
  readonly elapsedNs: number;
  readonly samples: number;
  readonly ranNs: number;
  readonly waitedNs: number;
  readonly inGuestNs: number;
  readonly onHostNs: number;
  /** Most first; names of processes safe to print, those of domains as they are. */
  readonly shares: readonly BlameShare[];
  /** Culprits that it did not name, and their part. */
  readonly rest: { readonly culprits: number; readonly waitedNs: number; readonly permille: number };
  readonly processes: readonly {
    readonly domain: string;
    readonly pid: number;
    readonly comm: string;
    readonly ranNs: number;
    readonly waitedNs: number;
  }[];
  readonly moreProcesses: number;
  readonly notes: readonly BlameNote[];
}

export interface FleetBlame {
  readonly domain: string | null;
  readonly process: string | null;
  /** Who waited most first. */
  readonly hosts: readonly HostBlame[];
  /** Hosts that are there and told nothing. */
  readonly silent: readonly string[];
}

/** Makes the shares of what a host says: it may say anything, and they add up all the same. */
export function hostBlame(
  host: string,
  version: string,
  found: Exclude<BlameFound, { error: unknown }>,
): HostBlame {
  const { elapsedNs, samples, ranNs, culprits, rest, processes, moreProcesses, notes } = found;
  const sorted = culprits.toSorted((a, b) => b.waitedNs - a.waitedNs);
  const restNs = rest.inGuestNs + rest.onHostNs;
  const parts = permilles([...sorted.map(({ waitedNs }) => waitedNs), restNs]);
  const shares = sorted.map(({ kind, domain, comm, place, waitedNs }, i) => ({
    culprit: {
      kind,
      ...(domain !== undefined && { domain }),
      ...(comm !== undefined && { comm: spelt(comm) }),
    },
    place,
    waitedNs,
    permille: parts[i]!,
  }));
  const inGuestNs = waitedAt('guest', shares) + rest.inGuestNs;
  const onHostNs = waitedAt('host', shares) + rest.onHostNs;
  return {
    ...{ host, version: printable(version), elapsedNs, samples, ranNs },
    ...{ waitedNs: inGuestNs + onHostNs, inGuestNs, onHostNs, shares },
    rest: { culprits: rest.culprits, waitedNs: restNs, permille: parts.at(-1)! },
    processes: processes
      .map((one) => ({ ...one, comm: spelt(one.comm) }))
      .sort((a, b) => b.waitedNs - a.waitedNs),
    moreProcesses,
    notes,
  };
}

/** Spelt for terminals where it was read; spelt again if it was not. */
function spelt(comm: string): string {
  return /^[\x20-\x7e]*$/.test(comm) ? comm : printable(comm);
}

/** `blame --fleet --json`. Its keys are stable; docs/blame.md describes them. */
export function fleetBlameEntry({ domain, process, hosts, silent }: FleetBlame) {
  return {
    domain,
    process,
    hosts: hosts.map(({ inGuestNs, onHostNs, shares, rest, processes, ...one }) => ({
      host: one.host,
      version: one.version,
      elapsedNs: one.elapsedNs,
      samples: one.samples,
      ranNs: one.ranNs,
      waitedNs: one.waitedNs,
      waitedInGuestNs: inGuestNs,
      waitedOnHostNs: onHostNs,
      culprits: shares.map(({ culprit, place, waitedNs, permille }) => ({
        kind: culprit.kind,
        domain: culprit.domain ?? null,
        process: culprit.comm === undefined ? null : plainName(culprit.comm),
        place,
        waitedNs,
        share: permille / 1000,
      })),
      rest: { culprits: rest.culprits, waitedNs: rest.waitedNs, share: rest.permille / 1000 },
      processes: processes.map(({ comm, ...victim }) => ({ ...victim, comm: plainName(comm) })),
      moreProcesses: one.moreProcesses,
      notes: one.notes,
    })),
    silent,
  };
}
