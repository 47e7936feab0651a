import type { BlameResult, BlameShare } from '../blame/blame.ts';
import { blameNotes } from '../blame/notes.ts';
import { plainName } from '../guest/text.ts';

/** Whose waits a result is about. */
export interface BlameSubject {
  /** Name of the domain. */
  readonly domain: string;
  /** Pid or name as it was given; null for all processes. */
  readonly process: string | null;
}

/** `blame --json`. Its keys are stable; docs/blame.md describes them. */
export function blameEntry({ domain, process }: BlameSubject, result: BlameResult) {
  const { elapsedNs, samples, ranNs, waitedNs, shares, victims } = result;
  return {
    domain,
    process,
    elapsedNs,
    samples,
    ranNs,
    waitedNs,
    waitedInGuestNs: waitedAt('guest', shares),
    waitedOnHostNs: waitedAt('host', shares),
    culprits: shares.map(({ culprit, place, waitedNs: ns, permille }) => ({
      kind: culprit.kind,
      domain: culprit.domain ?? null,
      process: culprit.comm === undefined ? null : plainName(culprit.comm),
      place,
      waitedNs: ns,
      share: permille / 1000,
    })),
    processes: victims.map(({ domain: _, comm, ...victim }) => ({ ...victim, comm: plainName(comm) })),
    notes: blameNotes((name) => name === domain, result),
  };
}

export function waitedAt(wanted: BlameShare['place'], shares: readonly BlameShare[]): number {
  return shares.reduce((sum, { place, waitedNs }) => sum + (place === wanted ? waitedNs : 0), 0);
}
