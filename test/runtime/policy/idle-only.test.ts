import test from 'ava';
import fc from 'fast-check';
import { idleOnly } from '../../../runtime/policy/idle-only.ts';
import { domainsOf, held, world } from './worlds.ts';

const BACKUP = 'batch/backup';
const run = (sketch: object) =>
  domainsOf({ batch: [{ comm: 'backup', ranNs: 4e8 }], web: [{ comm: 'nginx', ...sketch }] });

test('a subject is held while a process of another domain runs, and goes on when it sleeps', (t) => {
  const policy = idleOnly();
  const busy = policy(world(run({ ranNs: 3e8, state: 'running' }), [BACKUP]), undefined);
  t.deepEqual(held(busy.actions), [BACKUP]);
  t.regex(busy.actions[0]!.reason, /web: nginx \(\d+\) runs/);
  t.deepEqual(held(policy(world(run({}), [BACKUP]), busy.memory).actions), []);
});

test('what ran counts, not what a single look meets', (t) => {
  const policy = idleOnly();
  const asleepNow = policy(world(run({ ranNs: 3e8, state: 'sleeping' }), [BACKUP]), undefined);
  t.deepEqual(held(asleepNow.actions), [BACKUP], 'it sleeps at the look, but ran since the last');
  const awakeOnce = policy(world(run({ state: 'running', ranNs: 1000 }), [BACKUP]), undefined);
  t.deepEqual(held(awakeOnce.actions), [], 'awake for a moment');
  const starved = policy(world(run({ state: 'ready' }), [BACKUP]), awakeOnce.memory);
  t.deepEqual(held(starved.actions), [BACKUP], 'has waited for a CPU twice');
});

test('kernel threads, ignored ones and the subjects themselves hold nobody up', (t) => {
  const policy = idleOnly({ ignore: ({ comm }) => comm === 'monitor' });
  const domains = domainsOf({
    batch: [
      { comm: 'backup', ranNs: 5e8, state: 'running' },
      { comm: 'indexer', ranNs: 5e8, state: 'running' },
      { comm: 'kworker', ranNs: 5e8, kernelThread: true },
    ],
    web: [{ comm: 'monitor', ranNs: 5e8 }],
  });
  t.deepEqual(held(policy(world(domains, [BACKUP, 'batch/indexer']), undefined).actions), []);
});

test('quiet: they stay held for a while after the last run', (t) => {
  const policy = idleOnly({ quietMs: 2_000 });
  const busy = policy(world(run({ ranNs: 3e8 }), [BACKUP], 10_000), undefined);
  const soon = policy(world(run({}), [BACKUP], 11_999), busy.memory);
  t.deepEqual(held(soon.actions), [BACKUP]);
  const later = policy(world(run({}), [BACKUP], 12_001), soon.memory);
  t.deepEqual(held(later.actions), []);
});

test('quiet: at the first look nobody knows since when the others rest, so who is held stays so', (t) => {
  const policy = idleOnly({ quietMs: 2_000 });
  const at = (ms: number, memory?: Parameters<typeof policy>[1]) => {
    const domains = domainsOf({
      batch: [
        { comm: 'backup', state: 'held', heldMs: 500 },
        { comm: 'indexer', state: 'running', ranNs: 4e8 },
      ],
      web: [{ comm: 'nginx' }],
    });
    return policy(world(domains, [BACKUP, 'batch/indexer'], ms), memory);
  };
  const first = at(10_000);
  t.deepEqual(held(first.actions), [BACKUP], 'who runs goes on');
  const soon = at(11_999, first.memory);
  t.deepEqual(held(soon.actions), [BACKUP]);
  t.deepEqual(held(at(12_000, soon.memory).actions), []);
});

const sketch = fc.record({
  comm: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
  ranNs: fc.constantFrom(0, 0, 1e3, 1e8, 5e8),
  state: fc.constantFrom('running', 'ready', 'sleeping', 'stopped' as const),
});
const guests = fc.dictionary(
  fc.constantFrom('g1', 'g2', 'g3'),
  fc.uniqueArray(sketch, { selector: ({ comm }) => comm, maxLength: 5 }),
);

test('all subjects are held or none, and somebody else ran when they are', (t) => {
  fc.assert(
    fc.property(guests, fc.func(fc.boolean()), (sketches, choose) => {
      const domains = domainsOf(sketches);
      const all = domains.flatMap(({ processes }) => processes);
      const subjects = all.filter(({ key }) => choose(key)).map(({ key }) => key);
      const found = held(idleOnly()(world(domains, subjects), undefined).actions);
      const others = all.filter(({ key }) => !subjects.includes(key));
      const someoneRan = others.some(({ ranNs }) => ranNs >= 0.01 * 5e8);
      return someoneRan ? found.length === subjects.length : found.length === 0;
    }),
  );
  t.pass('fast-check found no counterexample');
});

test('who was at work at several looks just before counts at once; what a short interval adds up to does not', (t) => {
  const policy = idleOnly();
  const ran = (sketch: object, elapsedMs: number) => ({
    ...world(run({ state: 'running', ...sketch }), [BACKUP]),
    elapsedMs,
    intervalMs: 500,
  });
  t.deepEqual(held(policy(ran({ roused: true }, 7), undefined).actions), [BACKUP]);
  t.deepEqual(held(policy(ran({ roused: true, state: 'held' }, 7), undefined).actions), []);
  t.deepEqual(
    held(policy(ran({ ranNs: 4e6 }, 7), undefined).actions),
    [],
    'less than 1 % of a whole interval',
  );
  t.deepEqual(held(policy(ran({ ranNs: 6e6 }, 7), undefined).actions), [BACKUP]);
  t.deepEqual(held(policy(ran({ ranNs: 6e6 }, 2_000), undefined).actions), [], 'nor of a longer one');
});
