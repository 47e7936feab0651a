import test from 'ava';
import fc from 'fast-check';
import { fairShare } from '../../../runtime/policy/fair-share.ts';
import { proportionalShare } from '../../../runtime/policy/proportional-share.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import type { Policy } from '../../../runtime/policy/world.ts';
import { domainsOf, held, type Sketch, world } from './worlds.ts';

/**
 * A host with `cpus` CPUs on which everyone who is not held wants to run all the time and gets the same share of what
 * there is, at most one CPU. @returns CPU time of each in ms
 */
function simulate(
  policy: Policy,
  places: Readonly<Record<string, readonly string[]>>,
  cpus: number,
  ticks: number,
) {
  const tickMs = 100;
  const had = new Map<string, number>();
  const keys = Object.entries(places).flatMap(([domain, names]) => names.map((name) => `${domain}/${name}`));
  let stopped = new Set<string>();
  let memory: unknown;
  for (let tick = 1; tick <= ticks; tick++) {
    const free = keys.filter((key) => !stopped.has(key));
    const each = Math.min(1, cpus / free.length) * tickMs;
    for (const key of free) had.set(key, (had.get(key) ?? 0) + each);
    const sketches: Record<string, Sketch[]> = {};
    for (const [domain, names] of Object.entries(places)) {
      sketches[domain] = names.map((comm) => {
        const isHeld = stopped.has(`${domain}/${comm}`);
        return { comm, state: isHeld ? 'held' : 'running', ranNs: isHeld ? 0 : each * 1e6 };
      });
    }
    const now = { ...world(domainsOf(sketches), keys, tick * tickMs), elapsedMs: tickMs };
    const decision = policy(now, memory);
    memory = decision.memory;
    stopped = new Set(held(decision.actions));
  }
  return had;
}

test('three quarters and one quarter of a CPU, in two guests', (t) => {
  const shares = [{ select: selector([{ comm: 'web' }]), weight: 3 }];
  const policy = proportionalShare({ shares }) as Policy;
  const had = simulate(policy, { one: ['web'], two: ['batch'] }, 1, 600);
  const total = had.get('one/web')! + had.get('two/batch')!;
  t.true(Math.abs(had.get('one/web')! / total - 0.75) < 0.02, `${had.get('one/web')! / total}`);
});

test('by domain, a guest with three busy processes gets what a guest with one gets', (t) => {
  const places = { many: ['a', 'b', 'c'], one: ['d'] };
  const byDomain = simulate(fairShare({ by: 'domain' }), places, 1, 600);
  const many = ['a', 'b', 'c'].reduce((sum, name) => sum + byDomain.get(`many/${name}`)!, 0);
  t.true(Math.abs(many / (many + byDomain.get('one/d')!) - 0.5) < 0.03, `${many}`);
  const byProcess = simulate(fairShare(), places, 1, 600);
  for (const ms of byProcess.values()) t.true(Math.abs(ms / 60_000 - 0.25) < 0.03, `${ms}`);
});

test('whatever the weights, each gets its part of one CPU, within a hundredth, and everyone runs', (t) => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 2, maxLength: 5 }), (weights) => {
      const names = weights.map((_, i) => `p${i}`);
      const shares = weights.map((weight, i) => ({ select: selector([{ comm: `p${i}` }]), weight }));
      const policy = proportionalShare({ shares }) as Policy;
      const had = simulate(policy, { one: names.slice(0, 1), two: names.slice(1) }, 1, 3_000);
      const total = [...had.values()].reduce((a, b) => a + b, 0);
      const sum = weights.reduce((a, b) => a + b, 0);
      return names.every((name, i) => {
        const ms = had.get(`${i === 0 ? 'one' : 'two'}/${name}`)!;
        return Math.abs(ms / total - weights[i]! / sum) < 0.01;
      });
    }),
    { numRuns: 30 },
  );
  t.pass('fast-check found no counterexample');
});

test('as many run as there are CPUs: none is left idle for the sake of a share', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 2, max: 6 }), (cpus, count) => {
      const names = Array.from({ length: count }, (_, i) => `p${i}`);
      const shares = names.map((comm, i) => ({ select: selector([{ comm }]), weight: i + 1 }));
      const had = simulate(proportionalShare({ shares, cpus }) as Policy, { one: names }, cpus, 200);
      const total = [...had.values()].reduce((a, b) => a + b, 0);
      return Math.abs(total - Math.min(cpus, count) * 200 * 100) < 1e-6 * total;
    }),
  );
  t.pass('fast-check found no counterexample');
});

test('who slept comes back level: it neither has saved up time nor owes any', (t) => {
  const policy = proportionalShare({ shares: [], leadMs: 100 });
  const keys = ['one/a', 'two/b'];
  const busy = { state: 'running' as const, ranNs: 5e8 };
  let memory: ReturnType<typeof policy>['memory'];
  // `b` sleeps for long, `a` runs alone.
  for (let i = 0; i < 100; i++) {
    const decision = policy(
      world(domainsOf({ one: [{ comm: 'a', ...busy }], two: [{ comm: 'b' }] }), keys),
      memory,
    );
    t.deepEqual(held(decision.actions), [], 'alone nobody is ahead');
    memory = decision.memory;
  }
  const both = domainsOf({ one: [{ comm: 'a', ...busy }], two: [{ comm: 'b', ...busy }] });
  const back = policy(world(both, keys), memory);
  t.deepEqual(held(back.actions), []);
});
