import type { BlameResult, BlameShare } from '../blame/blame.ts';
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
    processes: victims.map(({ comm, ...victim }) => ({ ...victim, comm: plainName(comm) })),
    notes: blameNotes(domain, result),
  };
}

export function waitedAt(wanted: BlameShare['place'], shares: readonly BlameShare[]): number {
  return shares.reduce((sum, { place, waitedNs }) => sum + (place === wanted ? waitedNs : 0), 0);
}

/** What a reader has to know to judge a result. */
export interface BlameNote {
  readonly code:
    | 'waits-sampled'
    | 'host-waits-sampled'
    | 'host-waits-unknown'
    | 'claims-too-much'
    | 'not-read';
  readonly domain: string;
}

export function blameNotes(domain: string, { audits }: BlameResult): BlameNote[] {
  const notes: BlameNote[] = [];
  for (const [name, audit] of audits) {
    const add = (code: BlameNote['code']) => notes.push({ code, domain: name });
    if (name === domain && !audit.accountsWaits) add('waits-sampled');
    if (name === domain && audit.hostWaits !== 'measured') add(`host-waits-${audit.hostWaits}`);
    if (audit.claimsTooMuch) add('claims-too-much');
    if (!audit.isRead) add('not-read');
  }
  return notes;
}
