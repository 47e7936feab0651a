import test from 'ava';
import fc from 'fast-check';
import { io } from '../../../runtime/policy/io.ts';
import { shortFirst } from '../../../runtime/policy/short-first.ts';
import { domainsOf, held, world } from './worlds.ts';

test('io: a process that is hardly ever ready is seen by any run at all, and subjects are held in their sleep', (t) => {
  const policy = io({ protect: ({ comm }) => comm === 'db', windowMs: 2_000 });
  const keys = ['two/copy'];
  const guests = (ranNs: number) => domainsOf({ one: [{ comm: 'db', ranNs }], two: [{ comm: 'copy' }] });
  const ran = policy(world(guests(20_000), keys, 10_000), undefined);
  t.deepEqual(held(ran.actions), keys);
  const rests = policy(world(guests(0), keys, 11_500), ran.memory);
  t.deepEqual(held(rests.actions), keys, 'within the window');
  t.deepEqual(held(policy(world(guests(0), keys, 12_500), rests.memory).actions), []);
});

test('io: at the first look nobody knows when a protected one last ran, so who is held stays so', (t) => {
  const policy = io({ windowMs: 2_000 });
  const domains = domainsOf({
    one: [{ comm: 'db' }],
    two: [{ comm: 'copy', state: 'held' }, { comm: 'index' }],
  });
  const keys = ['two/copy', 'two/index'];
  const first = policy(world(domains, keys, 10_000), undefined);
  t.deepEqual(held(first.actions), ['two/copy']);
  t.deepEqual(held(policy(world(domains, keys, 12_000), first.memory).actions), []);
});

test('io: with a duty, subjects get that part of the time', (t) => {
  fc.assert(
    fc.property(fc.double({ min: 0.05, max: 0.95, noNaN: true }), (duty) => {
      const policy = io({ duty, periodMs: 2_000 });
      let memory: ReturnType<typeof policy>['memory'];
      let free = 0;
      for (let tick = 0; tick < 2_000; tick++) {
        const domains = domainsOf({ one: [{ comm: 'db', ranNs: 1e6 }], two: [{ comm: 'copy' }] });
        const decision = policy(world(domains, ['two/copy'], tick * 10), memory);
        memory = decision.memory;
        if (decision.actions.length === 0) free += 1;
      }
      return Math.abs(free / 2_000 - duty) <= 0.01;
    }),
    { numRuns: 20 },
  );
  t.pass('fast-check found no counterexample');
});

test('short-first: who has used little goes first, by nice and weight, and nobody is held', (t) => {
  const policy = shortFirst({ limitsMs: [1_000, 10_000], nice: [-5, 10], weight: [1024, 64] });
  const busy = { state: 'running' as const, ranNs: 4e8 };
  const domains = domainsOf(
    {
      one: [
        { comm: 'ls', cpuNs: 5e6, ...busy },
        { comm: 'cc', cpuNs: 60e9, ...busy },
      ],
      two: [{ comm: 'simulate', cpuNs: 5e9, ...busy }],
      three: [{ comm: 'idle', cpuNs: 5e6 }],
    },
    { weight: 256 },
  );
  const keys = domains.flatMap(({ processes }) => processes.map(({ key }) => key));
  const { actions } = policy(world(domains, keys), undefined);
  t.deepEqual(held(actions), []);
  const nice = Object.fromEntries(
    actions.flatMap((action) => (action.type === 'nice' ? [[action.process, action.nice]] : [])),
  );
  t.true(nice['one/ls']! < nice['two/simulate']!);
  t.true(nice['two/simulate']! < nice['one/cc']!);
  t.false('three/idle' in nice);
  const weights = Object.fromEntries(
    actions.flatMap((action) => (action.type === 'weight' ? [[action.domain, action.weight]] : [])),
  );
  t.true(weights.one! > weights.two!);
  t.false('three' in weights);
});
