import process from 'node:process';
import { openControl } from '../control/open.ts';
import { jsonText, printable } from '../guest/text.ts';
import type { ShareEntry } from '../hypervisor/share.ts';
import type { DomainShare } from '../hypervisor/types.ts';

export interface ShareOptions {
  connect?: string[];
  json?: true;
}

/**
 * Runs `domsched weight` and `domsched cap`: sets the requested values and prints what the hypervisor then reports.
 * @throws DomschedError `usage` outside the scheduler's bounds; `capability-missing` if there is no such scheduler
 */
export async function share(
  domain: string,
  wanted: Partial<DomainShare>,
  { connect, json }: ShareOptions,
): Promise<void> {
  await using control = await openControl(connect);
  const entry = await control.share({ domain, ...wanted });
  process.stdout.write(json ? jsonText([entry]) : `${shareLine(entry)}\n`);
}

/** The share in words. */
export function shareLine({ domain, scheduler, weight, cap, before }: ShareEntry): string {
  const was = (then: number, now: number, text: string) => (then === now ? '' : ` (was ${text})`);
  const limit = (percent: number) => (percent === 0 ? 'no cap' : `cap ${percent} % of one CPU`);
  const weightText = `weight ${weight}${was(before.weight, weight, String(before.weight))}`;
  return `${printable(domain)}: ${weightText}, ${limit(cap)}${was(before.cap, cap, limit(before.cap))} [${scheduler}]`;
}
