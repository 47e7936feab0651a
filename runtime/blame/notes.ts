import type { BlameResult } from './blame.ts';

/** What a reader has to know to judge a result. */
export const NOTE_CODES = [
  'waits-sampled',
  'host-waits-sampled',
  'host-waits-unknown',
  'claims-too-much',
  'not-read',
] as const;

export interface BlameNote {
  readonly code: (typeof NOTE_CODES)[number];
  readonly domain: string;
}

/** @param isSubject whether a result is about the waits of a domain, by its name */
export function blameNotes(isSubject: (domain: string) => boolean, { audits }: BlameResult): BlameNote[] {
  const notes: BlameNote[] = [];
  for (const [name, audit] of audits) {
    const add = (code: BlameNote['code']) => notes.push({ code, domain: name });
    if (isSubject(name) && !audit.accountsWaits) add('waits-sampled');
    if (isSubject(name) && audit.hostWaits !== 'measured') add(`host-waits-${audit.hostWaits}`);
    if (audit.claimsTooMuch) add('claims-too-much');
    if (!audit.isRead) add('not-read');
  }
  return notes;
}
