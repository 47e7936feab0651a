import test from 'ava';
import { parseConfig } from '../../../runtime/daemon/config.ts';
import { parseFleetPolicy } from '../../../runtime/daemon/fleet-policy.ts';
import { mindedHosts } from '../../../runtime/daemon/minded-hosts.ts';
import { makePolicies } from '../../../runtime/daemon/policies.ts';
import { QUESTION_MS } from '../../../runtime/fleet/hearing.ts';
import { type SelectorSpec, selectorName } from '../../../runtime/policy/selector.ts';
import type { ProcessView } from '../../../runtime/policy/world.ts';
import { processOf } from '../policy/worlds.ts';

const IO = (protect: string) => `[[policy]]\ntype = "io"\nselect = [{ comm = "backup" }]\n${protect}\n`;
const PRIORITY = (order: string) => `[[policy]]\ntype = "priority"\norder = [${order}]\n`;
const IDLE = '[[policy]]\ntype = "idle-only"\nselect = [{ comm = "backup", host = "a" }]\n';
const FAIR = '[[policy]]\ntype = "fair-share"\nselect = [{ comm = "*" }]\n';

const CASES: readonly (readonly [
  policies: string,
  hosts: readonly string[] | undefined,
  questions?: number,
])[] = [
  [IO('protect = [{ host = "db-1", comm = "postgres" }]'), ['db-1']],
  [IO('protect = [{ host = ["db-2", "db-1"] }]'), ['db-1', 'db-2']],
  // Nobody waits for what has the last place.
  [PRIORITY('{ host = "db-1" }, { host = "web-1" }'), ['db-1']],
  [PRIORITY('{ host = "db-1" }, { comm = "backup" }'), ['db-1']],
  [PRIORITY('{ comm = "database" }'), undefined],
  [FAIR + IO('protect = [{ host = "db-1" }]'), ['db-1']],
  // What may be any host's: no name, a pattern, an exception, no selector at all, all others.
  [PRIORITY('{ comm = "database" }, { host = "web-1" }'), undefined, 1],
  [PRIORITY('{ comm = "database" }, { comm = "web" }, { comm = "backup" }'), undefined, 2],
  // Of the first places it is known whose they are.
  [PRIORITY('{ host = "db-1" }, { comm = "web" }, { comm = "backup" }'), ['db-1'], 1],
  [IO('protect = [{ host = "db-*" }]'), undefined, 1],
  [IO('protect = [{ host = ["db-1", "!db-2"] }]'), undefined, 1],
  [IDLE + IO(''), undefined, 2],
  [IDLE + PRIORITY('{ host = "db-1" }, { host = "web-1" }'), ['db-1'], 1],
  [IDLE + PRIORITY('{ comm = "database" }, { comm = "backup" }'), undefined, 2],
  [IO(''), undefined, 1],
  [IDLE, undefined, 1],
  [IO('protect = [{ host = "db-1" }]') + IDLE, ['db-1'], 1],
  [
    IO(`protect = [${Array.from({ length: 65 }, (_, i) => `{ host = "db-${i}" }`).join(', ')}]`),
    undefined,
    1,
  ],
  // Nobody is held for others: who listens all the same looks around.
  [FAIR, undefined],
  ['', undefined],
];

const minded = (policies: string) => mindedHosts(parseFleetPolicy(policies, 'the policy'));

test('hosts are named only if nothing that another one does can change a decision', (t) => {
  for (const [policies, hosts, questions] of CASES) {
    const found = minded(policies);
    t.deepEqual([found.hosts, found.questions?.length], [hosts, questions], policies);
  }
});

/** One that another host says of, with the selectors that match there. */
function elsewhere(specs: readonly SelectorSpec[], ranNs: number, host = 'db-1'): ProcessView {
  const matched = new Set(specs.map(selectorName));
  return processOf('fleet:db-1', { comm: 'c', ranNs, elsewhere: { host, matched } });
}

const NS = QUESTION_MS * 1e6;
const BACKUP = { comm: 'backup' };

test('what is enough to hold for is what the policy holds for, and no more', (t) => {
  const ofIdle = (more = '') =>
    minded(`[[policy]]\ntype = "idle-only"\nselect = [{ comm = "backup" }]\n${more}\n`).questions![0]!
      .isAnsweredBy;
  const busy = 0.01 * NS;
  t.true(ofIdle()(elsewhere([], busy)));
  t.false(ofIdle()(elsewhere([], busy - 1)));
  t.true(ofIdle()({ ...elsewhere([], 0), state: 'ready' }));
  t.false(ofIdle()(elsewhere([BACKUP], NS)), 'a subject there');
  t.false(ofIdle('threshold = 0.5')(elsewhere([], 0.4 * NS)));
  const ignored = ofIdle('ignore = [{ comm = "monitor" }]');
  t.false(ignored(elsewhere([{ comm: 'monitor' }], NS)));
  t.true(ignored(elsewhere([{ comm: 'other' }], NS)));
  const ofIo = (protect = '') => minded(IO(protect)).questions![0]!.isAnsweredBy;
  t.true(ofIo()(elsewhere([], 1)));
  t.false(ofIo()(elsewhere([], 0)));
  t.false(ofIo()(elsewhere([BACKUP], 1)));
  const db = { host: 'db-*', comm: 'postgres' };
  const ofDb = ofIo('protect = [{ host = "db-*", comm = "postgres" }]');
  t.true(ofDb(elsewhere([db], 1)));
  t.false(ofDb(elsewhere([], 1)));
  t.false(ofDb(elsewhere([db], 1, 'web-1')), 'a host of that name says so of itself');
});

const DB = { comm: 'db' };
const WEB = { comm: 'web' };
const ORDER = PRIORITY('{ comm = "db" }, { comm = "web" }, { comm = "backup" }');

test('a place is answered by who works at one before it, if it is sure to be its policy’s', (t) => {
  const [second, third] = minded(ORDER).questions!.map(({ isAnsweredBy }) => isAnsweredBy);
  t.true(second!(elsewhere([DB], NS)));
  t.false(second!(elsewhere([WEB], NS)));
  t.false(second!(elsewhere([], NS)));
  t.true(third!(elsewhere([DB], NS)));
  t.true(third!(elsewhere([WEB], NS)));
  t.true(third!({ ...elsewhere([WEB], 0), state: 'ready' }));
  t.false(third!(elsewhere([WEB], 0.01 * NS - 1)));
  t.false(third!(elsewhere([BACKUP], NS)));
  t.false(third!({ ...elsewhere([WEB], NS), pid: 1 }), 'no policy touches it, and none waits for it');
  const others = `never = [{ comm = "sshd" }]\n${IDLE}${ORDER}`;
  const sure = minded(others).questions!.at(-1)!.isAnsweredBy;
  t.true(sure(elsewhere([WEB], NS)));
  t.false(sure(elsewhere([WEB, { comm: 'sshd' }], NS)));
  t.false(sure(elsewhere([WEB, { comm: 'backup', host: 'a' }], NS, 'a')), 'the policy before may own it');
});

test('what a place asks is asked while somebody here has it, by the same names', async (t) => {
  const config = parseConfig(`${ORDER}${IDLE.replace('"backup", host = "a"', '"restic"')}`, 'x');
  const decide = await makePolicies(config, '/');
  const names = mindedHosts(config).questions!.map(({ name }) => name);
  const askedWith = (...comms: string[]) => {
    const processes = comms.map((comm, i) => processOf('here', { comm, pid: 10 + i, key: `here ${comm}` }));
    const domains = [{ id: 'here', name: 'here', vcpus: 1, processes }];
    const { asked } = decide({ nowMs: 0, date: new Date(), elapsedMs: 500, domains });
    return names.map((name) => asked.has(name));
  };
  t.deepEqual(askedWith('db', 'cron'), [false, false, false], 'who is first waits for nobody');
  t.deepEqual(askedWith('db', 'web'), [true, false, false]);
  t.deepEqual(askedWith('backup', 'backup'), [false, true, false]);
  t.deepEqual(askedWith('web', 'restic', 'backup'), [true, true, true]);
});
