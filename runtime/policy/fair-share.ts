import { type ProportionalShareOptions, proportionalShare } from './proportional-share.ts';
import type { Policy, ProcessView } from './world.ts';

/** Among whom CPU time is divided. */
export type FairBy = 'process' | 'domain' | 'user';

export interface FairShareOptions extends Pick<ProportionalShareOptions, 'cpus' | 'leadMs' | 'threshold'> {
  readonly by?: FairBy;
}

/**
 * The same CPU time for each process, each domain or each user that wants it, over all domains (Tadokoro et al.,
 * 6.2): a guest with ten busy processes does not get ten times what a guest with one gets, by `domain`, or gets just
 * that, by `process`.
 */
export function fairShare({ by = 'process', ...options }: FairShareOptions = {}): Policy {
  return proportionalShare({ ...options, shares: [], group: fairGroup(by) }) as Policy;
}

/** Who shares one weight. */
export function fairGroup(by: FairBy): (process: ProcessView) => string {
  return GROUPS[by];
}

const GROUPS: Readonly<Record<FairBy, (process: ProcessView) => string>> = {
  process: ({ key }) => key,
  domain: ({ domain }) => domain,
  // One number is another user in another guest.
  user: ({ domain, uid }) => `${domain} ${uid ?? '?'}`,
};
