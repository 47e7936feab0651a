import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { type CombinedMemory, combine, type PlacedPolicy } from '../../../runtime/policy/combine.ts';
import { idleOnly } from '../../../runtime/policy/idle-only.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import type { DomainView, Policy } from '../../../runtime/policy/world.ts';
import { domainsOf, held, observed, processOf } from './worlds.ts';

const holdAll: Policy = ({ subjects }) => ({
  actions: [...subjects].map((process) => ({ type: 'hold', process, reason: 'always' })),
});
const weigh =
  (weight: number): Policy =>
  ({ domains }) => ({
    actions: domains.map(({ id }) => ({ type: 'weight', domain: id, weight, reason: 'always' })),
  });

function entry(name: string, policy: Policy, comm: string, more: Partial<PlacedPolicy> = {}): PlacedPolicy {
  return { name, policy, select: selector([{ comm }]), windows: [], limit: undefined, ...more };
}

test('a process belongs to the first policy that selects it, a weight to the first that sets one', (t) => {
  const domains = domainsOf({ one: [{ comm: 'backup' }, { comm: 'index' }] });
  const leave: Policy = () => ({ actions: [] });
  const decide = combine([
    entry('first', leave, 'backup'),
    entry('second', holdAll, '*'),
    entry('third', weigh(512), 'none'),
    entry('fourth', weigh(64), 'none'),
  ]);
  const { actions } = decide(observed(domains));
  t.deepEqual(
    actions.map(({ type, policy }) => `${policy} ${type}`),
    ['second hold', 'third weight'],
  );
  t.deepEqual(held(actions), ['one/index']);
});

test('what is not a policy’s own is dropped; a policy that throws does nothing and keeps nobody', (t) => {
  const domains = domainsOf({ one: [{ comm: 'backup' }, { comm: 'other' }] });
  const greedy: Policy = () => ({ actions: [{ type: 'hold', process: 'one/other', reason: 'not mine' }] });
  const broken: Policy = () => {
    throw new Error('broken');
  };
  const wrong: Policy = () => ({ actions: [{ type: 'nice', process: 'one/backup', nice: 99, reason: 'x' }] });
  const seen: string[] = [];
  const decide = combine(
    [entry('greedy', greedy, 'backup'), entry('broken', broken, 'x'), entry('wrong', wrong, 'y')],
    undefined,
    (policy) => seen.push(policy),
  );
  t.deepEqual(decide(observed(domains)).actions, []);
  t.deepEqual(seen, ['broken', 'wrong']);
});

test('a hold that is kept ends with its policy’s say in the process, its hours, and its limit', (t) => {
  const leave: Policy = () => ({ actions: [] });
  const domains = domainsOf({ one: [{ comm: 'backup', state: 'held', heldMs: 60_000 }] });
  const kept = [{ type: 'hold', process: 'one/backup', policy: 'mine', reason: 'as before' }] as const;
  const keeps = (...entries: PlacedPolicy[]) =>
    held(combine(entries)(observed(domains), undefined, kept).actions).length === 1;
  t.true(keeps(entry('mine', leave, 'backup')));
  t.false(keeps());
  t.false(keeps(entry('mine', leave, 'other')));
  t.false(keeps(entry('first', leave, 'backup'), entry('mine', leave, 'backup')), 'another’s by now');
  const windows = [{ from: '22:00', to: '06:00' }];
  t.false(keeps(entry('mine', leave, 'backup', { windows })), 'noon');
  t.true(keeps(entry('mine', leave, 'backup', { limit: { maxHoldMs: 70_000, sliceMs: 1_000 } })));
  t.false(keeps(entry('mine', leave, 'backup', { limit: { maxHoldMs: 50_000, sliceMs: 1_000 } })));
  const { actions } = combine([entry('mine', holdAll, 'backup')])(observed(domains), undefined, kept);
  t.deepEqual(
    actions.map(({ reason }) => reason),
    ['always'],
    'what the policy says now goes before',
  );
});

test('kernel threads, process 1, what has ended and what is never to be touched belong to nobody', (t) => {
  const domains = domainsOf({
    one: [
      { comm: 'kworker', kernelThread: true },
      { comm: 'init', pid: 1 },
      { comm: 'dead', state: 'ended' },
      { comm: 'sshd' },
      { comm: 'backup' },
    ],
  });
  const decide = combine([entry('all', holdAll, '*')], selector([{ comm: 'sshd' }]));
  t.deepEqual(held(decide(observed(domains)).actions), ['one/backup']);
});

test('time windows: a policy outside its hours does nothing', (t) => {
  const domains = domainsOf({ one: [{ comm: 'backup' }] });
  const at = (date: Date) => {
    const windows = [{ from: '22:00', to: '06:00', days: ['mon' as const] }];
    const decide = combine([entry('night', holdAll, '*', { windows })]);
    return held(decide({ ...observed(domains), date }).actions).length === 1;
  };
  // 2026-01-05 is a Monday.
  t.false(at(new Date(2026, 0, 5, 21, 59)));
  t.true(at(new Date(2026, 0, 5, 22, 0)));
  t.true(at(new Date(2026, 0, 6, 5, 59)), 'it began on Monday');
  t.false(at(new Date(2026, 0, 6, 6, 0)));
  t.false(at(new Date(2026, 0, 6, 22, 0)), 'Tuesday');
  t.false(at(new Date(2026, 0, 5, 3, 0)), 'began on Sunday');
});

test('selectors: patterns, numbers, and what a guest does not tell', (t) => {
  const process = processOf('db1', {
    comm: 'pg_dump',
    pid: 42,
    uid: 999,
    cgroup: '/system.slice/backup.service',
    commandLine: 'pg_dump --all main',
  });
  const fits = (...specs: Parameters<typeof selector>[0]) => selector(specs)(process);
  t.true(fits({ comm: 'pg_*', domain: 'db*' }));
  t.true(fits({ comm: ['x', 'pg_dump'] }));
  t.true(fits({ comm: '*', domain: ['*', '!web*'] }));
  t.false(fits({ comm: '*', domain: ['*', '!db*'] }));
  t.true(fits({ cgroup: '/system.slice/*' }, { pid: 1 }));
  t.true(fits({ user: [1, 999], command: '*--all*' }));
  t.false(fits({ comm: 'PG_*' }), 'case counts');
  t.false(fits({ pid: 43 }));
  t.false(fits());
  t.false(selector([{ user: 0 }])(processOf('o1', { comm: 'pi' })), 'unknown is not zero');
});

test('nobody starves: whatever a policy wants, no hold lasts beyond its limit, and a slice follows', (t) => {
  const limit = { maxHoldMs: 3_000, sliceMs: 700 };
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 10, max: 600 }), { minLength: 50, maxLength: 200 }),
      fc.infiniteStream(fc.boolean()),
      (steps, wishes) => {
        const whim: Policy = ({ subjects }) => ({
          // Mostly holds: a policy that never lets go on its own.
          actions: [...subjects]
            .filter(() => wishes.next().value || wishes.next().value || wishes.next().value)
            .map((process) => ({ type: 'hold' as const, process, reason: 'whim' })),
        });
        const decide = combine([entry('whim', whim, '*', { limit })]);
        let memory: CombinedMemory | undefined;
        let nowMs = 0;
        let since: number | undefined;
        let forced: number | undefined;
        let before = steps[0]!;
        for (const elapsedMs of steps) {
          nowMs += elapsedMs;
          const isHeld = since !== undefined;
          const sketch = {
            comm: 'victim',
            ...(isHeld && { state: 'held' as const, heldMs: nowMs - since! }),
          };
          const decision = decide({ ...observed(domainsOf({ one: [sketch] }), nowMs, elapsedMs) }, memory);
          memory = decision.memory;
          const holds = held(decision.actions).length > 0;
          // One step may be as long as the loop is late; the limit can be passed by no more than how steps differ.
          if (isHeld && nowMs - since! > limit.maxHoldMs + Math.max(0, elapsedMs - before)) return false;
          if (isHeld && !holds && Object.keys(memory.slices).length > 0) forced = nowMs;
          if (holds && forced !== undefined && nowMs - forced < limit.sliceMs) return false;
          if (holds) forced = undefined;
          since = holds ? (since ?? nowMs) : undefined;
          before = elapsedMs;
        }
        return true;
      },
    ),
  );
  t.pass('fast-check found no counterexample');
});

test('it is told what to watch while a subject runs, and what a policy decided already is not', (t) => {
  const idle: PlacedPolicy = {
    ...entry('mine', idleOnly() as Policy, 'backup'),
    rousedBy: { among: 'others' },
  };
  const decide = combine([idle]);
  const seen = (server: object) =>
    observed(
      domainsOf({
        batch: [{ comm: 'backup', state: 'running', ranNs: 4e8 }],
        web: [{ comm: 'nginx', ...server }],
      }),
    );
  const first = decide(seen({}));
  t.deepEqual([...first.alert!.loose], ['batch/backup']);
  const busy = decide(seen({ ranNs: 3e8 }), first.memory);
  t.deepEqual(held(busy.actions), ['batch/backup']);
  t.is(busy.alert, undefined);
  t.is(combine([entry('mine', idleOnly() as Policy, 'backup')])(seen({})).alert, undefined);
});

test('a process belongs to another policy in other hours, though nothing in its domain has changed', (t) => {
  const domains = domainsOf({ one: [{ comm: 'backup' }] });
  const windows = [{ from: '22:00', to: '06:00' }];
  const decide = combine([entry('night', holdAll, '*', { windows }), entry('day', holdAll, '*')]);
  const owner = (hour: number) => {
    const { actions } = decide({ ...observed(domains), date: new Date(2026, 0, 5, hour, 0) });
    return actions.map(({ policy }) => policy);
  };
  t.deepEqual([12, 23, 23, 12].map(owner), [['day'], ['night'], ['night'], ['day']]);
});

test('who decides about a process is the same whatever was found at looks before', (t) => {
  const entries = [
    entry('night', holdAll, 'b*', { windows: [{ from: '22:00', to: '06:00' }] }),
    entry('one', holdAll, 'a*'),
    entry('all', holdAll, '*'),
  ];
  const sketch = fc.record({
    comm: fc.constantFrom('a1', 'a2', 'b1', 'b2', 'never'),
    kernelThread: fc.constantFrom(false, false, true),
    state: fc.constantFrom('sleeping' as const, 'ended' as const),
    // Places at which the process of the last look is kept, as its tracker does if nothing of it changed.
    keeps: fc.boolean(),
  });
  const look = fc.record({
    hour: fc.constantFrom(12, 12, 12, 23),
    domains: fc.dictionary(fc.constantFrom('one', 'two'), fc.array(sketch, { maxLength: 5 })),
  });
  fc.assert(
    fc.property(fc.array(look, { maxLength: 12 }), (looks) => {
      const never = selector([{ comm: 'never' }]);
      const often = combine(entries, never);
      let memory: CombinedMemory | undefined;
      let before: DomainView[] = [];
      for (const { hour, domains } of looks) {
        const now = domainsOf(domains).map((domain) => {
          const old = before.find(({ id }) => id === domain.id)?.processes ?? [];
          const kept = domain.processes.map((process, i) => {
            return domains[domain.id]![i]!.keeps ? (old[i] ?? process) : process;
          });
          const isSame = kept.length === old.length && kept.every((process, i) => process === old[i]);
          return { ...domain, processes: isSame ? old : kept };
        });
        const seen = { ...observed(now), date: new Date(2026, 0, 5, hour, 0) };
        const decided = often(seen, memory);
        const anew = combine(entries, never)(seen, memory);
        if (!isDeepStrictEqual(decided.actions, anew.actions)) return false;
        memory = decided.memory;
        before = now;
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.pass('fast-check found no counterexample');
});
