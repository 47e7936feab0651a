import process from 'node:process';
import Table from 'cli-table3';
import { openDaemon } from '../control/open.ts';
import { DomschedError } from '../error.ts';
import type { FleetStatus } from '../fleet/status.ts';
import { harmless, jsonText } from '../guest/text.ts';
import { PLAIN } from './plain-table.ts';

export interface FleetOptions {
  json?: true;
}

/**
 * Runs `domsched fleet status`.
 * @throws DomschedError `host-unreachable` without a daemon, `usage` if it has no fleet
 */
export async function fleet(_what: 'status', { json }: FleetOptions): Promise<void> {
  await using daemon = await openDaemon();
  if (daemon === undefined) throw new DomschedError('host-unreachable', 'no daemon runs on this host', {});
  const status = await daemon.fleet();
  if (status === null)
    throw new DomschedError('usage', 'this host is in no fleet: its configuration has no [fleet]', {});
  process.stdout.write(json ? jsonText(status) : statusText(status));
}

/** The status for people; what other hosts say is made safe for a terminal. */
export function statusText({ name, connected, sinceMs, server, error, hosts, refused }: FleetStatus): string {
  const since = seconds(sinceMs);
  const link = connected
    ? `connected to ${server} for ${since}`
    : `cut off for ${since}${error === null ? '' : ` (${error})`}: this host goes on by itself`;
  const lines = [`${name}: ${harmless(link)}`];
  if (hosts.length === 0) lines.push('No other host has been heard.');
  else {
    const table = new Table({ head: ['host', 'state', 'heard', 'at work'], ...PLAIN });
    for (const { host, state, heardMs, activity } of hosts) {
      const work = activity.map(({ domain, comm, share }) => `${domain}: ${comm} (${percent(share)})`);
      table.push([host, state, `${seconds(heardMs)} ago`, harmless(work.join(', ')) || '-']);
    }
    lines.push(table.toString());
  }
  for (const { reason, count, last } of refused)
    lines.push(`${count} messages were not taken, the last of ${harmless(last)}: ${reason}`);
  return `${lines.join('\n')}\n`;
}

function seconds(ms: number): string {
  return ms < 100_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

function percent(share: number): string {
  return share === 0 ? 'waits' : `from ${share * 100} % of a CPU`;
}
