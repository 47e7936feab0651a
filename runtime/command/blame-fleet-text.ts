import Table from 'cli-table3';
import { printable } from '../guest/text.ts';
import { culpritName } from '../tick/culprit.ts';
import type { FleetBlame, HostBlame } from './blame-fleet-entry.ts';
import { BLAME_NOTES, part, time } from './blame-text.ts';
import { PLAIN } from './plain-table.ts';

/** Most lines of the tables; a line below says how many are left out. */
const MOST_HOSTS = 40;
const MOST_CULPRITS = 30;
const MOST_VICTIMS = 15;
const MOST_NOTES = 20;

/** What all hosts found, in words and tables. */
export function fleetBlameText({ domain, process, hosts }: FleetBlame): string {
  const of = domain === null ? 'all domains' : printable(domain);
  const whose = process === null ? `the processes of ${of}` : `${printable(process)} of ${of}`;
  const where = hosts.length === 1 ? '1 host' : `${hosts.length} hosts`;
  const sum = (key: 'ranNs' | 'waitedNs') => time(hosts.reduce((all, one) => all + one[key], 0));
  const lines = [
    `On ${where}, ${whose} ran for ${sum('ranNs')} and waited for a CPU for ${sum('waitedNs')}.`,
  ];
  const add = (head: readonly string[], rows: readonly (readonly string[])[], most: number, what: string) => {
    if (rows.length === 0) return;
    const table = new Table({ ...PLAIN, head: [...head] });
    for (const row of rows.slice(0, most)) table.push([...row]);
    lines.push('', table.toString());
    if (rows.length > most) lines.push(`and ${rows.length - most} more ${what}`);
  };
  add(
    ['HOST', 'LOOKED', 'RAN', 'WAITED', 'IN GUESTS', 'ON THE HOST'],
    hosts.map((one) => [
      one.host,
      ...[one.elapsedNs, one.ranNs, one.waitedNs, one.inGuestNs, one.onHostNs].map(time),
    ]),
    MOST_HOSTS,
    'hosts',
  );
  add(['HOST', 'WAITED', 'SHARE', 'WHERE', 'FOR WHOM'], culpritRows(hosts), MOST_CULPRITS, 'culprits');
  add(['HOST', 'WAITED', 'RAN', 'PID', 'WHO WAITED'], victimRows(hosts), MOST_VICTIMS, 'processes');
  const notes = hosts.flatMap((one) =>
    one.notes.map(({ code, domain: name }) => `${one.host}/${printable(name)}: ${BLAME_NOTES[code]}`),
  );
  lines.push(...notes.slice(0, MOST_NOTES));
  if (notes.length > MOST_NOTES) lines.push(`and ${notes.length - MOST_NOTES} more notes`);
  return `${lines.join('\n')}\n`;
}

/** A line for each culprit and one for the rest of each host, most first. Shares are of what waited on that host. */
function culpritRows(hosts: readonly HostBlame[]): string[][] {
  return hosts
    .flatMap(({ host, shares, rest }) => [
      ...shares.map(({ culprit, place, waitedNs, permille }) => {
        const name =
          culprit.domain === undefined ? culprit : { ...culprit, domain: printable(culprit.domain) };
        return { waitedNs, cells: [host, time(waitedNs), part(permille), place, culpritName(name)] };
      }),
      ...(rest.culprits > 0
        ? [
            {
              waitedNs: rest.waitedNs,
              cells: [host, time(rest.waitedNs), part(rest.permille), '', `${rest.culprits} others`],
            },
          ]
        : []),
    ])
    .sort((a, b) => b.waitedNs - a.waitedNs)
    .map(({ cells }) => cells);
}

function victimRows(hosts: readonly HostBlame[]): string[][] {
  const rows = hosts.flatMap(({ host, processes }) => processes.map((one) => ({ host, ...one })));
  return rows
    .sort((a, b) => b.waitedNs - a.waitedNs)
    .map(({ host, waitedNs, ranNs, pid, domain, comm }) => [
      host,
      time(waitedNs),
      time(ranNs),
      String(pid),
      `${printable(domain)}: ${comm}`,
    ]);
}
