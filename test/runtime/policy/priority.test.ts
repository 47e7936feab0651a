import test from 'ava';
import fc from 'fast-check';
import { priority } from '../../../runtime/policy/priority.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import { domainsOf, held, world } from './worlds.ts';

const order = (...names: string[]) => names.map((comm) => selector([{ comm }]));
const KEYS = ['one/DB', 'one/BACKUP', 'two/WEB'];

/** DB and BACKUP share a domain; the named ones run. */
function guests(running: readonly string[], share: object = { weight: 256 }) {
  const of = (comm: string) => ({
    comm,
    ...(running.includes(comm) && { ranNs: 3e8, state: 'running' as const }),
  });
  return domainsOf({ one: [of('DB'), of('BACKUP')], two: [of('WEB')] }, share);
}

function decide(running: readonly string[], share?: object) {
  const policy = priority({ order: order('DB', 'WEB', 'BACKUP') });
  return policy(world(guests(running, share), KEYS), undefined).actions;
}

test('WEB, DB and BACKUP (the paper, 3.2): weights alone would put BACKUP in front of WEB', (t) => {
  const weights = new Map(
    decide([]).flatMap((action) => (action.type === 'weight' ? [[action.domain, action.weight]] : [])),
  );
  t.true(weights.get('one')! > weights.get('two')!, 'the domain of DB weighs more than that of WEB');
  const nice = new Map(
    decide([]).flatMap((action) => (action.type === 'nice' ? [[action.process, action.nice]] : [])),
  );
  t.true(nice.get('one/DB')! < nice.get('one/BACKUP')!, 'inside their guest DB goes before BACKUP');
  t.false(nice.has('two/WEB'), 'nobody to be ordered against');
  for (const [running, holds] of [
    [['WEB', 'BACKUP'], ['one/BACKUP']],
    [['WEB'], ['one/BACKUP']],
    [['DB', 'BACKUP'], []],
    [['DB', 'WEB', 'BACKUP'], ['one/BACKUP']],
    [['DB', 'WEB'], ['one/BACKUP']],
    [['BACKUP'], []],
    [[], []],
  ] as const) {
    t.deepEqual(held(decide(running)), holds, `running: ${running.join(', ')}`);
  }
});

test('without weights only holding keeps the order between domains', (t) => {
  t.deepEqual(held(decide(['DB', 'WEB'], {})), ['one/BACKUP', 'two/WEB']);
  t.deepEqual(held(decide(['DB', 'BACKUP'], {})), ['two/WEB'], 'inside a domain nice values do');
  t.false(decide(['DB'], {}).some(({ type }) => type === 'weight'));
});

test('who is in no place of the order is left alone', (t) => {
  const domains = domainsOf({ one: [{ comm: 'DB', ranNs: 3e8 }], two: [{ comm: 'cron', ranNs: 3e8 }] });
  const { actions } = priority({ order: order('DB') })(world(domains, ['one/DB', 'two/cron']), undefined);
  t.false(actions.some((action) => 'process' in action && action.process === 'two/cron'));
});

const NAMES = ['a', 'b', 'c', 'd'];

test('the most important process that runs is never held; nobody is held for a less important one', (t) => {
  fc.assert(
    fc.property(
      fc.shuffledSubarray(NAMES, { minLength: 1 }),
      fc.array(fc.constantFrom('one', 'two', 'three'), { minLength: 4, maxLength: 4 }),
      fc.subarray(NAMES),
      fc.boolean(),
      (ranking, homes, running, weights) => {
        const sketches: Record<string, { comm: string; ranNs: number }[]> = {};
        for (const [i, comm] of NAMES.entries()) {
          sketches[homes[i]!] ??= [];
          sketches[homes[i]!]!.push({ comm, ranNs: running.includes(comm) ? 3e8 : 0 });
        }
        const domains = domainsOf(sketches, weights ? { weight: 256 } : {});
        const keys = NAMES.map((comm, i) => `${homes[i]}/${comm}`);
        const { actions } = priority({ order: order(...ranking) })(world(domains, keys), undefined);
        const places = held(actions).map((key) => ranking.indexOf(key.split('/')[1]!));
        const first = Math.min(
          ...running.filter((comm) => ranking.includes(comm)).map((comm) => ranking.indexOf(comm)),
        );
        return places.every((place) => place > first);
      },
    ),
  );
  t.pass('fast-check found no counterexample');
});
