import Table from 'cli-table3';
import type { BlameResult, BlameShare } from '../blame/blame.ts';
import { type BlameNote, blameNotes } from '../blame/notes.ts';
import { printable } from '../guest/text.ts';
import { lengthOf } from '../report/scale.ts';
import { culpritName } from '../tick/culprit.ts';
import { type BlameSubject, waitedAt } from './blame-entry.ts';
import { PLAIN } from './plain-table.ts';

/** Most lines of the tables; the last says what the others add up to. */
const MOST_CULPRITS = 15;
const MOST_VICTIMS = 8;

export const BLAME_NOTES: Readonly<Record<BlameNote['code'], string>> = {
  'waits-sampled': 'its kernel does not account waits: they are estimated from who was ready at each sample',
  'host-waits-sampled':
    'its hypervisor tells only a vCPU itself how long it waited: here it waited when two samples met it ready and it did not run in between; shorter waits are not known',
  'host-waits-unknown': 'the host does not tell when its vCPUs ran: only waits inside the guest are shown',
  'claims-too-much':
    'its processes claim more CPU time than its vCPUs were given: it is shared among them in proportion',
  'not-read': 'its processes could not be read; what it had of the CPUs is shown as a whole',
};

/** The result in words and tables. */
export function blameText(subject: BlameSubject, result: BlameResult): string {
  const { elapsedNs, ranNs, waitedNs, shares, victims } = result;
  const whose =
    printable(subject.domain) + (subject.process === null ? '' : `: ${printable(subject.process)}`);
  const of = subject.process === null ? 'the processes of ' : '';
  const lines = [
    `In ${time(elapsedNs)}, ${of}${whose} ran for ${time(ranNs)} and waited for a CPU for ${time(waitedNs)}:`,
    `${time(waitedAt('guest', shares))} in its guest's run queues, ${time(waitedAt('host', shares))} while its vCPUs waited on the host.`,
  ];
  if (shares.length > 0) lines.push('', culpritTable(shares));
  const waited = victims.filter((victim) => victim.waitedNs > 0);
  if (waited.length > 1) {
    const table = new Table({ ...PLAIN, head: ['WAITED', 'RAN', 'PID', 'WHO WAITED'] });
    for (const { waitedNs: ns, ranNs: ran, pid, comm } of waited.slice(0, MOST_VICTIMS))
      table.push([time(ns), time(ran), String(pid), comm]);
    lines.push('', table.toString());
    if (waited.length > MOST_VICTIMS) lines.push(`and ${waited.length - MOST_VICTIMS} more processes`);
  }
  for (const { code, domain } of blameNotes((name) => name === subject.domain, result))
    lines.push(`${printable(domain)}: ${BLAME_NOTES[code]}`);
  return `${lines.join('\n')}\n`;
}

function culpritTable(shares: readonly BlameShare[]): string {
  const table = new Table({ ...PLAIN, head: ['WAITED', 'SHARE', 'WHERE', 'FOR WHOM'] });
  const shown = shares.length > MOST_CULPRITS + 1 ? shares.slice(0, MOST_CULPRITS) : shares;
  for (const { culprit, place, waitedNs, permille } of shown)
    table.push([
      time(waitedNs),
      part(permille),
      place,
      culpritName(culprit.domain === undefined ? culprit : { ...culprit, domain: printable(culprit.domain) }),
    ]);
  const rest = shares.slice(shown.length);
  if (rest.length > 0) {
    const ns = rest.reduce((sum, { waitedNs }) => sum + waitedNs, 0);
    const permille = rest.reduce((sum, each) => sum + each.permille, 0);
    table.push([time(ns), part(permille), '', `${rest.length} others`]);
  }
  return table.toString();
}

export function part(permille: number): string {
  return `${(permille / 10).toFixed(1)} %`;
}

export function time(ns: number): string {
  return lengthOf(ns / 1e6);
}
