import process from 'node:process';
import Table from 'cli-table3';
import { openDaemon } from '../control/open.ts';
import { DomschedError } from '../error.ts';
import type { FleetStatus } from '../fleet/status.ts';
import { harmless, jsonText } from '../guest/text.ts';
import { shellWord } from '../shell-word.ts';
import type { TickFleetPolicy } from '../tick/tick.ts';
import { fleetConfig, JOIN } from './fleet-config.ts';
import type { FleetOptions, PolicyAction } from './fleet-options.ts';
import { lazily } from './lazily.ts';
import { PLAIN } from './plain-table.ts';

/**
 * Runs `domsched fleet`.
 * @throws DomschedError `host-unreachable` without a daemon or a server, `usage` if there is no fleet
 */
export async function fleet(
  what: 'status' | 'policy',
  action: PolicyAction | undefined,
  file: string | undefined,
  options: FleetOptions,
): Promise<void> {
  if (what === 'policy') return await policy(action, file, options);
  if (action !== undefined)
    throw new DomschedError('usage', `the status of a fleet takes no ${action}; its policy does`, {});
  return await printStatus(options);
}

/** Loaded apart: the status needs neither a configuration nor a server. */
const policy = lazily(async () => (await import('./fleet-policy-run.ts')).fleetPolicy);

async function printStatus({ config, json }: FleetOptions): Promise<void> {
  await using daemon = await openDaemon();
  if (daemon === undefined) throw await noDaemon(config);
  const status = await daemon.fleet();
  if (status === null) {
    const text = `this host is in no fleet: ${JOIN} to the daemon's configuration, and send it SIGHUP`;
    throw new DomschedError('usage', text, {});
  }
  process.stdout.write(json ? jsonText(status) : statusText(status));
}

/** With what to do next, which depends on whether there is a configuration to start a daemon with. */
async function noDaemon(file: string): Promise<DomschedError> {
  const start = `domsched run -c ${shellWord(file)}`;
  const lacks = await fleetConfig(file).then(
    () => '',
    (error: DomschedError) =>
      error.code === 'usage' ? `${JOIN} to ${file}, and ` : `${error.message}\nmend that, ${JOIN}, and `,
  );
  const text = `no daemon runs on this host: ${lacks}start one with ${start}`;
  return new DomschedError('host-unreachable', text, { file });
}

/** The status for people; what other hosts say is made safe for a terminal. */
export function statusText(status: FleetStatus): string {
  const { name, connected, sinceMs, server, error, listens, hosts, refused, policy, layouts } = status;
  const since = lasted(sinceMs);
  const link = connected
    ? `connected to ${server} for ${since}`
    : `cut off for ${since}${error === null ? '' : ` (${error})`}: this host goes on by itself`;
  const lines = [harmless(`${name}: ${link}`), harmless(policyText(policy))];
  if (layouts !== null) lines.push(layoutsText(layouts));
  if (!listens) lines.push('Nobody here could be held for other hosts: they are not listened to.');
  else if (hosts.length === 0) lines.push('No other host has been heard: who is idle says nothing.');
  else {
    const table = new Table({ head: ['host', 'state', 'heard', 'at work'], ...PLAIN });
    for (const { host, state, heardMs, activity } of hosts) {
      const work = activity.map(({ domain, comm, share }) => `${domain}: ${comm} (${percent(share)})`);
      table.push([host, state, `${lasted(heardMs)} ago`, harmless(work.join(', ')) || '-']);
    }
    lines.push(table.toString());
  }
  if (listens && status.listensTo !== null)
    lines.push(
      harmless(`Only these are listened to, as policies here name no other: ${status.listensTo.join(', ')}`),
    );
  if (status.few)
    lines.push('More are at work than are listened to: these are enough for the policies here.');
  for (const { reason, count, last } of refused)
    lines.push(`${count} messages were not taken, the last of ${harmless(last)}: ${reason}`);
  return `${lines.join('\n')}\n`;
}

function layoutsText({ taken, given, refused }: NonNullable<FleetStatus['layouts']>): string {
  return `layouts: ${taken} taken from the fleet, ${given} given to it, ${refused} refused`;
}

function policyText({ revision, by, at, isCurrent, ageMs, refused, error }: TickFleetPolicy): string {
  const parts: string[] = [];
  if (revision === undefined) parts.push('no policy of the fleet is in force here');
  else parts.push(`policy: revision ${revision}, set by ${by} at ${at}`);
  if (refused !== undefined) parts.push(`revision ${refused.revision} cannot be used: ${refused.why}`);
  else if (isCurrent) parts.push('the latest');
  else if (ageMs !== undefined) parts.push(`as it was ${lasted(ageMs)} ago: the store is away`);
  if (error !== undefined) parts.push(`its store: ${error}`);
  return parts.join('; ');
}

function lasted(ms: number): string {
  return ms < 100_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

function percent(share: number): string {
  return share === 0 ? 'waits' : `from ${share * 100} % of a CPU`;
}
