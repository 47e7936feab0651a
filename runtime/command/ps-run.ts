import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ProcessRow } from '../control/control.ts';
import { openControl } from '../control/open.ts';
import { DomschedError, exitCodeOf } from '../error.ts';
import { harmless, jsonText, plainName } from '../guest/text.ts';
import { comparison, flat, tree } from './ps-order.ts';
import { table } from './ps-table.ts';

export interface PsOptions {
  connect?: string[];
  json?: true;
  tree?: true;
  threads?: true;
  sort?: string;
  pause?: true;
  watch?: string | true;
  fleet?: true;
  config: string;
}

const DEFAULT_INTERVAL_S = 2;
const SHORTEST_INTERVAL_S = 0.01;
/** Longest interval that a Node timer supports, in seconds. */
const LONGEST_INTERVAL_S = 2_147_483;

/**
 * Runs `domsched ps`. A domain that cannot be read is reported; the others are still shown.
 * @throws DomschedError `usage`, `domain-not-found`, `domain-ambiguous`; the error of the only requested domain
 */
export async function ps(domain: string | undefined, options: PsOptions): Promise<void> {
  const compare = comparison(options.sort ?? 'pid');
  const interval = options.watch === undefined ? undefined : seconds(options.watch);
  const { pause, threads, config } = options;
  await using source = options.fleet ? await openFleet(config) : await openControl(options.connect);
  const ask = () => ('ask' in source ? source.ps(domain) : source.ps({ domain, pause, threads }));
  for (;;) {
    const { rows, errors, notes } = await ask();
    // Domain by domain, unless an order over all processes of the host is requested.
    const order = options.tree ? tree : flat;
    const grouped = options.tree || options.sort === undefined;
    const groups = grouped ? [...perDomain(rows)] : [rows];
    const listed = groups.flatMap((rows) => order(rows, compare));
    let text: string;
    if (options.json) text = jsonText(listed.map(({ process: row }) => entry(row)));
    else text = listed.length === 0 ? '' : table(listed);
    // On a terminal, move home and clear before each picture.
    const clear = interval !== undefined && process.stdout.isTTY ? '\x1b[H\x1b[2J' : '';
    await write(`${clear}${text}`);
    for (const note of notes) process.stderr.write(`domsched: ${harmless(note)}\n`);
    for (const { code, message } of errors)
      process.stderr.write(`domsched: ${harmless(message)} [${code}]\n`);
    if (interval === undefined) {
      // A refusal for safety is more important than a failure.
      const codes = errors.map(({ code }) => exitCodeOf(code as never));
      if (codes.length > 0) process.exitCode = codes.reduce<number>((most, code) => Math.max(most, code), 0);
      return;
    }
    await sleep(interval * 1000);
  }
}

/** Loaded only here: it needs NATS. */
const openFleet = async (config: string) =>
  (await import('./fleet-processes.ts')).FleetProcesses.open(config);

/** A process as `--json` prints it, with stable keys. */
function entry(row: ProcessRow) {
  const { domain, pid, tgid, ppid, state, cpu, nice, policy, utimeNs, stimeNs, threads, kernelThread } = row;
  // So far the name is spelled for terminals.
  const comm = plainName(row.comm);
  const place = { domain, pid, tgid, ppid, comm, state, cpu, nice, policy };
  const held = row.heldBy === undefined ? {} : { heldBy: row.heldBy };
  return { ...place, ...held, utimeNs, stimeNs, threads, kernelThread };
}

function perDomain(rows: readonly ProcessRow[]): Iterable<readonly ProcessRow[]> {
  return Map.groupBy(rows, ({ domain }) => domain).values();
}

function seconds(value: string | true): number {
  const number = value === true ? DEFAULT_INTERVAL_S : Number(value);
  if (number >= SHORTEST_INTERVAL_S && number <= LONGEST_INTERVAL_S) return number;
  throw new DomschedError(
    'usage',
    `--watch takes seconds from ${SHORTEST_INTERVAL_S} to ${LONGEST_INTERVAL_S}, not ${JSON.stringify(value)}`,
    { watch: value },
  );
}

/** Waits for a slow reader, so that nothing is lost when the program ends. */
async function write(text: string): Promise<void> {
  if (process.stdout.write(text)) return;
  await new Promise((resolve) => process.stdout.once('drain', resolve));
}
