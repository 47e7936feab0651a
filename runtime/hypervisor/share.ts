import { requireCapabilities } from './capability.ts';
import type { Domain, DomainShare } from './types.ts';

/** One line of `weight --json` and `cap --json`. Its keys are stable. */
export interface ShareEntry extends DomainShare {
  readonly domain: string;
  /** `credit`, `credit2` or `cgroup`. */
  readonly scheduler: string;
  /** The share before the change. */
  readonly before: DomainShare;
}

/**
 * Sets the given parts of a share; undefined ones stay as they are.
 * @throws DomschedError `capability-missing`; `usage` out of bounds
 */
export async function shareOf(
  domain: Domain,
  { weight, cap }: { weight?: number | undefined; cap?: number | undefined },
): Promise<ShareEntry> {
  requireCapabilities(domain, 'scheduler');
  const { scheduler } = domain;
  const before = await scheduler.get();
  const wanted = { ...(weight !== undefined && { weight }), ...(cap !== undefined && { cap }) };
  const now = Object.keys(wanted).length === 0 ? before : await scheduler.set(wanted);
  return { domain: domain.identity.name, scheduler: scheduler.name, ...now, before };
}
