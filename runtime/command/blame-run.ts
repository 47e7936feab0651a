import process from 'node:process';
import { Blame, type BlameResult } from '../blame/blame.ts';
import type { AccountSample, DomainTimes } from '../blame/sample.ts';
import type { Control } from '../control/control.ts';
import { openControl } from '../control/open.ts';
import { DomschedError, type DomschedErrorCode } from '../error.ts';
import { findProcesses, isProcess } from '../guest/find-process.ts';
import { jsonText, printable } from '../guest/text.ts';
import { Ticker } from '../tick/ticker.ts';
import { choose } from '../watch/choose.ts';
import { blameEntry } from './blame-entry.ts';
import type { BlameOptions } from './blame-options.ts';
import { blameText } from './blame-text.ts';
import { lazily } from './lazily.ts';

/**
 * Runs `domsched blame` until the time is over, or SIGINT or SIGTERM. It looks and changes nothing.
 * @throws DomschedError `usage`, `domain-not-found`, `domain-ambiguous`, `process-not-found`, `host-unreachable`; the error of
 *   the domain when it cannot be read
 */
export async function blame(
  domain: string | undefined,
  target: string | undefined,
  options: BlameOptions,
): Promise<void> {
  if (options.fleet) return await blameFleet(domain, target, options);
  if (options.host !== undefined)
    throw new DomschedError('usage', '--host chooses among the hosts of a fleet: add --fleet', {});
  if (domain === undefined)
    throw new DomschedError('usage', 'name the domain; domsched domains lists those that there are', {});
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  try {
    await using control = await openControl(options.connect);
    const first = await control.accounts();
    const timer = setTimeout(onSignal, options.for * 1000);
    try {
      const result = await watch(control, first, { domain, target, options, stop });
      const whose = { domain: theDomain(first, domain).name, process: target ?? null };
      process.stdout.write(options.json ? jsonText(blameEntry(whose, result)) : blameText(whose, result));
    } finally {
      clearTimeout(timer);
    }
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

/** Loaded apart: it needs NATS. */
const blameFleet = lazily(async () => (await import('./blame-fleet-run.ts')).blameFleet);

interface BlameWatch {
  readonly domain: string;
  readonly target: string | undefined;
  readonly options: BlameOptions;
  readonly stop: AbortController;
}

async function watch(control: Control, first: AccountSample, watch: BlameWatch): Promise<BlameResult> {
  const { domain, target, options, stop } = watch;
  const { id, name, threads } = readable(theDomain(first, domain));
  if (target !== undefined) findProcesses(name, threads, target);
  const blame = new Blame(id, (one) => target === undefined || isProcess(one, target));
  blame.add(first);
  const progress = new BlameProgress(options.for);
  try {
    for await (const _ of new Ticker(options.interval * 1000).ticks(stop.signal)) {
      const sample = await control.accounts();
      const seen = sample.domains.find((each) => each.id === id);
      // A guest that cannot be read for a moment is left out for that long; one that has ended will not come back.
      if (seen === undefined) break;
      blame.add(sample);
      progress.show((sample.ms - first.ms) / 1000);
    }
    const last = await control.accounts();
    if (last.domains.some((each) => each.id === id)) blame.add(last);
  } finally {
    progress.clear();
  }
  return blame.result();
}

/** @throws DomschedError `domain-not-found`, `domain-ambiguous` */
function theDomain({ domains }: AccountSample, wanted: string): DomainTimes {
  const found = choose(domains, wanted, (domain) => domain);
  if (found !== undefined) return found;
  throw new DomschedError(
    'domain-not-found',
    `there is no domain ${printable(wanted)}; domsched domains lists those that there are, --connect says where to look`,
    { domain: wanted },
  );
}

/** @throws DomschedError what kept the guest from being read */
function readable(domain: DomainTimes): DomainTimes {
  const { error, name } = domain;
  if (error === undefined) return domain;
  throw new DomschedError(error.code as DomschedErrorCode, error.message, { domain: name });
}

/** Seconds that are over, on a terminal. */
class BlameProgress {
  readonly #total: number;
  #isShown = false;

  constructor(total: number) {
    this.#total = total;
  }

  show(seconds: number): void {
    if (!process.stderr.isTTY) return;
    this.#isShown = true;
    process.stderr.write(`\r${Math.min(seconds, this.#total).toFixed(0)} of ${this.#total} s\x1b[K`);
  }

  clear(): void {
    if (this.#isShown) process.stderr.write('\r\x1b[K');
  }
}
