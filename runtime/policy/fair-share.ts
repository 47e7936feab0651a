import { type ProportionalShareOptions, proportionalShare } from './proportional-share.ts';
import type { Policy, ProcessView } from './world.ts';

/** What gets equal CPU time. */
export type FairBy = 'process' | 'domain' | 'user';

export interface FairShareOptions extends Pick<ProportionalShareOptions, 'cpus' | 'leadMs' | 'threshold'> {
  readonly by?: FairBy;
}

/**
 * Gives equal CPU time to each process, domain or user that wants it, over all domains (Tadokoro et al., 6.2). With
 * `domain`, a guest with ten busy processes gets as much as a guest with one; with `process`, ten times as much.
 */
export function fairShare({ by = 'process', ...options }: FairShareOptions = {}): Policy {
  return proportionalShare({ ...options, shares: [], group: fairGroup(by) }) as Policy;
}

/** Maps a process to the group that shares one weight. */
export function fairGroup(by: FairBy): (process: ProcessView) => string {
  return GROUPS[by];
}

const GROUPS: Readonly<Record<FairBy, (process: ProcessView) => string>> = {
  process: ({ key }) => key,
  domain: ({ domain }) => domain,
  // The same number is another user in another guest.
  user: ({ domain, uid }) => `${domain} ${uid ?? '?'}`,
};
