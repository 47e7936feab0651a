import test from 'ava';
import fc from 'fast-check';
import { type CombinedMemory, combine, type PlacedPolicy } from '../../../runtime/policy/combine.ts';
import { credible } from '../../../runtime/policy/credible.ts';
import type { Guarantee } from '../../../runtime/policy/guarantee.ts';
import { idleOnly } from '../../../runtime/policy/idle-only.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import type { DomainView, Policy } from '../../../runtime/policy/world.ts';
import { domainsOf, held, observed, type Sketch } from './worlds.ts';

const SLICE_MS = 1_000;
const tenth: Guarantee = { of: () => 0.1, sliceMs: SLICE_MS };

function entry(policy: Policy): PlacedPolicy {
  return { name: 'mine', policy, select: selector([{ comm: 'backup*' }]), windows: [], limit: undefined };
}

const holdAll: Policy = ({ subjects }) => ({
  actions: [...subjects].map((process) => ({ type: 'hold', process, reason: 'always' })),
});

/** What the guest in `other` claims and what its only vCPU does, as parts of the time. */
interface Other {
  readonly claims: number;
  readonly state: 'running' | 'sleeping';
  readonly ran: number;
}

/**
 * Two guests with a CPU each for a while: `batch` with a backup that always wants to run, and another one.
 * @returns the part of the time in which the backup ran, and in how many ticks the other was seen to lie
 */
function simulate(other: Other, guarantee: Guarantee | undefined, seconds = 240) {
  const tickMs = 500;
  const decide = combine([entry(idleOnly() as Policy)], undefined, undefined, guarantee);
  let memory: CombinedMemory | undefined;
  let isHeld = false;
  let ranMs = 0;
  let lies = 0;
  const ticks = (seconds * 1000) / tickMs;
  for (let tick = 1; tick <= ticks; tick++) {
    const backupNs = isHeld ? 0 : tickMs * 1e6;
    ranMs += backupNs / 1e6;
    const backup: Sketch = { comm: 'backup', state: isHeld ? 'held' : 'running', ranNs: backupNs };
    const forged: Sketch = { comm: 'server', state: other.state, ranNs: other.claims * tickMs * 1e6 };
    const [batch, evil] = domainsOf({ batch: [backup], evil: [forged] });
    const account = (part: number) => ({
      elapsedMs: tickMs,
      vcpus: [{ ranNs: part * tickMs * 1e6, waitedNs: 0 }],
    });
    const domains: DomainView[] = [
      { ...batch!, host: account(isHeld ? 0.02 : 1) },
      { ...evil!, host: account(other.ran) },
    ];
    const decision = decide(observed(domains, tick * tickMs, tickMs), memory);
    memory = decision.memory;
    lies += decision.overstated.has('evil') ? 1 : 0;
    isHeld = held(decision.actions).length > 0;
  }
  return { part: ranMs / (seconds * 1000), lies };
}

test('a guest that forges running tasks and CPU time costs others their guarantee’s complement, or nothing while it idles', (t) => {
  const busy = simulate({ claims: 1, state: 'running', ran: 1 }, tenth);
  t.true(busy.part >= 0.1 && busy.part < 0.12, `honest and busy: ${busy.part}`);
  t.is(busy.lies, 0);
  for (const claims of [1, 40, 1e6]) {
    const forging = simulate({ claims, state: 'running', ran: 1 }, tenth);
    t.true(Math.abs(forging.part - busy.part) < 0.01, `forged ${claims} and busy: ${forging.part}`);
    // An emulator's idle vCPU costs its host some percent.
    for (const ran of [0, 0.02, 0.06]) {
      const idle = simulate({ claims, state: 'running', ran }, tenth);
      t.true(idle.part > 0.95, `forged ${claims} and idle at ${ran}: ${idle.part}`);
      t.true(idle.lies > 0, 'and it is told');
    }
  }
  const ready = simulate({ claims: 0, state: 'running', ran: 0.02 }, tenth);
  t.true(ready.part > 0.95, `state words alone: ${ready.part}`);
  t.true(ready.lies > 0);
  const none = simulate({ claims: 1, state: 'running', ran: 1 }, undefined);
  t.true(none.part < 0.01, `without a guarantee: ${none.part}`);
});

test('an honest guest is not called a liar: one that waits, one that counts late, one that sleeps between looks', (t) => {
  const decide = combine([entry(idleOnly() as Policy)]);
  const lies = (looks: readonly { claims: number; ran: number; waited: number }[]) => {
    let memory: CombinedMemory | undefined;
    return looks.filter(({ claims, ran, waited }, i) => {
      const [db] = domainsOf({ db: [{ comm: 'db', state: 'running', ranNs: claims * 5e8 }] });
      const host = { elapsedMs: 500, vcpus: [{ ranNs: ran * 5e8, waitedNs: waited * 5e8 }] };
      const decision = decide(observed([{ ...db!, host }], i * 500), memory);
      memory = decision.memory;
      return decision.overstated.has('db');
    }).length;
  };
  const forever = (look: { claims: number; ran: number; waited: number }) => lies(Array(100).fill(look));
  t.is(forever({ claims: 1, ran: 0.1, waited: 0.9 }), 0, 'its clock counts on while its vCPU waits');
  t.is(forever({ claims: 0.97, ran: 1, waited: 0 }), 0);
  const late = Array.from({ length: 100 }, (_, i) => ({ claims: i % 2 === 0 ? 0 : 2, ran: 1, waited: 0 }));
  t.is(lies(late), 0, 'what it counts comes in lumps');
  t.is(
    forever({ claims: 0, ran: 0, waited: 0 }),
    0,
    'somebody has paused it while a process ran, or it is a dump',
  );
  t.is(forever({ claims: 1, ran: 0.3, waited: 0.3 }), 0, 'its emulator keeps it waiting');
  t.true(forever({ claims: 1, ran: 0.3, waited: 0 }) > 80, 'three times of what there was');
});

test('whatever policies want and others do, who wants the CPU gets the guarantee in every window', (t) => {
  const share = fc.double({ min: 0.2, max: 1, noNaN: true });
  const step = fc.record({ ms: fc.integer({ min: 20, max: 700 }), wish: fc.boolean(), share });
  const cpus = fc.double({ min: 0.02, max: 0.18, noNaN: true });
  fc.assert(
    fc.property(
      fc.array(step, { minLength: 100, maxLength: 400 }),
      cpus,
      fc.integer({ min: 1, max: 3 }),
      (steps, part, backups) => {
        let now = 0;
        const whim: Policy = (world) =>
          steps[now]!.wish || now % 3 > 0 ? holdAll(world, undefined) : { actions: [] };
        const decide = combine([entry(whim)], undefined, undefined, { of: () => part, sliceMs: SLICE_MS });
        const names = Array.from({ length: backups }, (_, i) => `backup${i}`);
        let memory: CombinedMemory | undefined;
        let isHeld = false;
        let nowMs = 0;
        let gotMs = 0;
        /** The most that was owed at any time, had the guarantee been paid at every moment. */
        let most = 0;
        let least = 0;
        for (const [i, { ms, share: had }] of steps.entries()) {
          now = i;
          nowMs += ms;
          const eachNs = isHeld ? 0 : (had * ms * 1e6) / backups;
          gotMs += (eachNs * backups) / 1e6;
          const lag = part * nowMs - gotMs;
          least = Math.min(least, lag);
          most = Math.max(most, lag - least);
          const state = isHeld ? 'held' : 'ready';
          const domains = domainsOf({ one: names.map((comm) => ({ comm, state, ranNs: eachNs })) });
          const decision = decide(observed(domains, nowMs, ms), memory);
          memory = decision.memory;
          isHeld = held(decision.actions).length > 0;
        }
        return most <= 3 * SLICE_MS + 2 * 700;
      },
    ),
    { numRuns: 60, endOnFailure: true },
  );
  t.pass('fast-check found no counterexample');
});

test('a guarantee holds nobody, and says what it does', (t) => {
  const sketch = fc.record({
    comm: fc.constantFrom('backup1', 'backup2', 'other'),
    state: fc.constantFrom('held' as const, 'ready' as const, 'sleeping' as const),
    ranNs: fc.integer({ min: 0, max: 1e9 }),
  });
  fc.assert(
    fc.property(
      fc.array(fc.uniqueArray(sketch, { selector: ({ comm }) => comm }), { maxLength: 60 }),
      (looks) => {
        const plain = combine([entry(holdAll)]);
        const guarded = combine([entry(holdAll)], undefined, undefined, tenth);
        let memory: CombinedMemory | undefined;
        for (const [i, sketches] of looks.entries()) {
          const world = observed(domainsOf({ one: sketches }), i * 900, 900);
          const decision = guarded(world, memory);
          memory = decision.memory;
          const without = new Set(held(plain(world).actions));
          if (!held(decision.actions).every((key) => without.has(key))) return false;
          if (decision.actions.some(({ reason }) => !reason.includes('guaranteed 10 %')) && i > 60)
            return false;
        }
        return true;
      },
    ),
  );
  const decide = combine([entry(holdAll)], undefined, undefined, tenth);
  const look = (owedMs: number) =>
    decide(observed(domainsOf({ one: [{ comm: 'backup', state: 'held' }] })), {
      policies: {},
      slices: {},
      claims: {},
      accounts: { one: { owedMs, slice: false, members: [] } },
    }).actions;
  t.like(look(0)[0], { type: 'hold', reason: 'always; its domain is guaranteed 10 % of a CPU' });
  t.like(look(990)[0], { type: 'run', policy: 'mine', reason: 'its domain is guaranteed 10 % of a CPU' });
});

test('who sleeps in the slice loses it; who hides what it uses wins nothing', (t) => {
  const decide = combine([entry(holdAll)], undefined, undefined, tenth);
  const after = (sketch: Sketch, ran: number) => {
    const [one] = domainsOf({ one: [sketch] });
    const host = { elapsedMs: 500, vcpus: [{ ranNs: ran * 5e8, waitedNs: 0 }] };
    const accounts = { one: { owedMs: 900, slice: true, members: [] } };
    const memory = { policies: {}, slices: {}, claims: {}, accounts };
    return decide(observed([{ ...one!, host }]), memory).memory.accounts.one!.owedMs;
  };
  t.is(after({ comm: 'backup', state: 'sleeping' }, 0.02), 450, 'asleep');
  t.is(after({ comm: 'backup', state: 'ready', ranNs: 5e8 }, 1), 450, 'it ran');
  t.is(after({ comm: 'backup', state: 'ready', ranNs: 0 }, 1), 500, 'nobody claims what the vCPU did');
  t.is(after({ comm: 'backup', state: 'held' }, 0.02), 950, 'not released yet');
  t.true(after({ comm: 'backup', state: 'ready', ranNs: 1e8 }, 0.2) > 800, 'others take the CPU');
});

test('the host’s word on the moment before counts, also if the vCPU idled for most of the interval', (t) => {
  const host = { elapsedMs: 500, vcpus: [{ ranNs: 4e6, waitedNs: 0 }] };
  const view = (roused: object) => ({
    ...domainsOf({ web: [{ comm: 'nginx', state: 'running', ...roused }] })[0]!,
    host,
  });
  t.is(credible(view({})).domain.processes[0]!.state, 'sleeping');
  t.is(credible(view({ roused: true })).domain.processes[0]!.state, 'running');
});
