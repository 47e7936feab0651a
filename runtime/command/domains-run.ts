import process from 'node:process';
import Table from 'cli-table3';
import type { DomainEntry } from '../control/control.ts';
import { openControl } from '../control/open.ts';
import { harmless, jsonText, printable } from '../guest/text.ts';
import { reasonsAgainst } from '../surgeon/ways.ts';
import { PLAIN } from './plain-table.ts';

export interface DomainsOptions {
  connect?: string[];
  json?: true;
}

/**
 * Runs `domsched domains`. A domain that cannot be identified is listed with the reason.
 * @throws DomschedError `usage`
 */
export async function domains({ connect, json }: DomainsOptions): Promise<void> {
  await using control = await openControl(connect);
  const entries = await control.domains();
  process.stdout.write(json ? jsonText(entries) : domainTable(entries));
}

/** The list for people; names and messages are made safe for a terminal. */
export function domainTable(entries: readonly DomainEntry[]): string {
  if (entries.length === 0) {
    return 'No domain was found. --connect says where to look; domsched doctor says what is missing.\n';
  }
  const table = new Table({
    head: ['domain', 'hypervisor', 'state', 'vcpus', 'MiB', 'kernel', 'layout', 'holds by'],
    ...PLAIN,
  });
  for (const { domain, hypervisor, state, vcpus, memoryBytes, kernel, layoutFrom, ...entry } of entries) {
    const { schedulers, ways, error } = entry;
    table.push([
      printable(domain),
      hypervisor,
      state ?? '-',
      vcpus ?? '-',
      memoryBytes === null ? '-' : Math.round(memoryBytes / 2 ** 20),
      printable(kernel ?? '-'),
      error === null
        ? (schedulers ?? []).join(' ') + (layoutFrom ? ' (from memory)' : '')
        : `none: ${harmless(error.message)} [${error.code}]`,
      ways?.techniques.join(' ') || '-',
    ]);
  }
  const reasons = entries.flatMap(({ domain, ways }) =>
    ways === null ? [] : reasonsAgainst(ways).map((reason) => `${printable(domain)}: ${harmless(reason)}\n`),
  );
  const standing = entries.flatMap(({ domain, standing: why }) =>
    why === null ? [] : [`${printable(domain)} ${harmless(why)}\n`],
  );
  return `${table.toString()}\n${standing.join('')}${reasons.join('')}`;
}
