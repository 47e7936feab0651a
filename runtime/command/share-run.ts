import process from 'node:process';
import { askDaemon } from '../daemon/ask-daemon.ts';
import { jsonText, printable } from '../guest/text.ts';
import { connectAll } from '../hypervisor/connect.ts';
import { type ShareEntry, shareOf } from '../hypervisor/share.ts';
import type { DomainShare } from '../hypervisor/types.ts';
import type { ShareOptions } from './share.ts';

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
  const { connect = [] } = options;
  const asked = await askDaemon<ShareEntry>('share', { domain: name, connect, ...wanted });
  const entry = asked ?? (await setShare(name, wanted, connect));
  process.stdout.write(options.json ? jsonText([entry]) : `${shareLine(entry)}\n`);
}

async function setShare(
  name: string,
  wanted: Partial<DomainShare>,
  connect: readonly string[],
): Promise<ShareEntry> {
  await using hosts = await connectAll(connect);
  await using domain = await hosts.open(name);
  return await shareOf(domain, wanted);
}

/** The share in words. */
export function shareLine({ domain, scheduler, weight, cap, before }: ShareEntry): string {
  const was = (then: number, now: number, text: string) => (then === now ? '' : ` (was ${text})`);
  const limit = (percent: number) => (percent === 0 ? 'no cap' : `cap ${percent} % of one CPU`);
  const weightText = `weight ${weight}${was(before.weight, weight, String(before.weight))}`;
  return `${printable(domain)}: ${weightText}, ${limit(cap)}${was(before.cap, cap, limit(before.cap))} [${scheduler}]`;
}
