import test from 'ava';
import { domainTable } from '../../../runtime/command/domains-run.ts';
import type { DomainEntry } from '../../../runtime/control/control.ts';

const entry: DomainEntry = {
  domain: 'night',
  id: '1',
  connection: 'qemu:/run/night.qmp',
  hypervisor: 'qemu',
  state: 'running',
  vcpus: 2,
  memoryBytes: 2 ** 28,
  kernel: '7.3.4',
  buildId: null,
  layoutFrom: null,
  schedulers: ['eevdf'],
  ways: { techniques: ['park', 'state'], refused: { splice: 'its queue\x1b[31m is new' } },
  error: null,
  standing: null,
};

test('the list says how processes of a guest can be held, and below it why not otherwise', (t) => {
  const lines = domainTable([
    entry,
    { ...entry, domain: 'day', ways: { techniques: ['park'], refused: {} } },
  ]).split('\n');
  t.true(lines.some((line) => /night.*park state/.test(line)));
  const reasons = lines.filter((line) => line.includes(': not by '));
  t.is(reasons.length, 1);
  t.regex(reasons[0]!, /^night: not by splice: its queue/);
  t.false(reasons[0]!.includes('\x1b'), 'a guest may have any text');
});

test('a guest of which nobody can be held says why', (t) => {
  const table = domainTable([{ ...entry, ways: { techniques: [], refused: { all: 'it is a dump' } } }]);
  t.regex(table, /night: cannot be held: it is a dump/);
});
