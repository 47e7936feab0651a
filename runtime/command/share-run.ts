import process from 'node:process';
import { openControl } from '../control/open.ts';
import type { Options } from '../control/schema.ts';
import { jsonText, printable } from '../guest/text.ts';
import type { ShareEntry } from '../hypervisor/share.ts';

export interface ShareOptions {
  connect?: string[];
  json?: true;
}

/** Runs `domsched weight`. @throws DomschedError as {@link share} */
export function weight(domain: string, wanted: number | undefined, options: ShareOptions): Promise<void> {
  return share({ domain, weight: wanted }, options);
}

/** Runs `domsched cap`. @throws DomschedError as {@link share} */
export function cap(domain: string, wanted: number | undefined, options: ShareOptions): Promise<void> {
  return share({ domain, cap: wanted }, options);
}

/**
 * Sets the requested value and prints what the hypervisor then reports.
 * @throws DomschedError `usage` outside the scheduler's bounds; `capability-missing` if there is no such scheduler
 */
async function share(wanted: Options<'share'>, { connect, json }: ShareOptions): Promise<void> {
  await using control = await openControl(connect);
  const entry = await control.share(wanted);
  process.stdout.write(json ? jsonText([entry]) : `${shareLine(entry)}\n`);
}

/** The share in words. */
export function shareLine({ domain, scheduler, weight, cap, before }: ShareEntry): string {
  const was = (then: number, now: number, text: string) => (then === now ? '' : ` (was ${text})`);
  const limit = (percent: number) => (percent === 0 ? 'no cap' : `cap ${percent} % of one CPU`);
  const weightText = `weight ${weight}${was(before.weight, weight, String(before.weight))}`;
  return `${printable(domain)}: ${weightText}, ${limit(cap)}${was(before.cap, cap, limit(before.cap))} [${scheduler}]`;
}
