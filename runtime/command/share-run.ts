import process from 'node:process';
import { printable } from '../guest/text.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import { connectAll } from '../hypervisor/connect.ts';
import type { DomainShare } from '../hypervisor/types.ts';
import type { ShareOptions } from './share.ts';

/** One line of `weight --json` and `cap --json`. Its keys are stable. */
export interface ShareEntry extends DomainShare {
  readonly domain: string;
  /** `credit`, `credit2`, `cgroup`. */
  readonly scheduler: string;
  /** What it was before. */
  readonly before: DomainShare;
}

/**
 * Runs `domsched weight` and `domsched cap`: what is wanted is set, the rest left, and what the hypervisor says then
 * is printed.
 * @throws DomschedError `usage` out of the scheduler's bounds; `capability-missing` where there is none to ask
 */
export async function share(
  name: string,
  wanted: Partial<DomainShare>,
  options: ShareOptions,
): Promise<void> {
  await using hosts = await connectAll(options.connect ?? []);
  await using domain = await hosts.open(name);
  requireCapabilities(domain, 'scheduler');
  const { scheduler } = domain;
  const before = await scheduler.get();
  const now = Object.keys(wanted).length === 0 ? before : await scheduler.set(wanted);
  const entry: ShareEntry = { domain: domain.identity.name, scheduler: scheduler.name, ...now, before };
  process.stdout.write(options.json ? `${JSON.stringify([entry], null, 2)}\n` : `${shareLine(entry)}\n`);
}

/** The share in words. */
export function shareLine({ domain, scheduler, weight, cap, before }: ShareEntry): string {
  const was = (then: number, now: number, text: string) => (then === now ? '' : ` (was ${text})`);
  const limit = (percent: number) => (percent === 0 ? 'no cap' : `cap ${percent} % of one CPU`);
  const weightText = `weight ${weight}${was(before.weight, weight, String(before.weight))}`;
  return `${printable(domain)}: ${weightText}, ${limit(cap)}${was(before.cap, cap, limit(before.cap))} [${scheduler}]`;
}
