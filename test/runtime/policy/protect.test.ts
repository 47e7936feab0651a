import test from 'ava';
import fc from 'fast-check';
import { type ProtectOptions, protect } from '../../../runtime/policy/protect.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import type { Action, DomainView, Policy } from '../../../runtime/policy/world.ts';
import { domainsOf, held, world } from './worlds.ts';

const TICK_MS = 100;
const WINDOW_TICKS = 10;
const TARGET_MS = 50;
const isPostgres = selector([{ domain: 'db*', comm: 'postgres' }]);
const make = (options: Partial<ProtectOptions> = {}): Policy =>
  protect({ protect: isPostgres, target: { waitMs: TARGET_MS }, ...options }) as Policy;

/** Numbers from 0 to 1 that are the same in every run. */
function* numbers(seed: number): Generator<number, never> {
  for (let state = seed; ; ) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state / 2 ** 32;
  }
}

interface ProtectedHost {
  /** What the service needs at each tick, in ms. */
  readonly demand: readonly number[];
  readonly cpus: 1 | 2;
  /** Errors of what is measured, and how often an edit comes a tick late; parts. */
  readonly noise?: number;
  readonly late?: number;
  /** What a hold takes until it is done, in ms, in which the subject has the CPU. */
  readonly holdMs?: number;
  readonly seed?: number;
}

/** A service in one guest, a batch job that always wants to run in another, on so many CPUs that share fairly. */
function simulate(
  policy: Policy,
  { demand, cpus, noise = 0, late = 0, holdMs = 0, seed = 1 }: ProtectedHost,
) {
  const random = numbers(seed);
  const ticks: { wait: number; batch: number; served: number; ran: boolean }[] = [];
  let memory: unknown;
  let isHeld = false;
  let wanted = false;
  let backlog = 0;
  const actions: Action[] = [];
  for (const [i, more] of demand.entries()) {
    const wasHeld = isHeld;
    // An edit that was asked for at the last tick, unless it comes later.
    if (random.next().value >= late) isHeld = wanted;
    const work = more + backlog;
    const isShared = !isHeld && cpus === 1;
    // While it is being held the subject still runs.
    const tail = isHeld && !wasHeld ? holdMs : 0;
    const ran = Math.min(work, isShared ? TICK_MS / 2 : TICK_MS - tail);
    backlog = work - ran;
    const wait = isShared ? ran : Math.min(work, tail);
    const batch = isHeld ? tail : cpus === 2 ? TICK_MS : TICK_MS - ran;
    ticks.push({ wait, batch, served: ran, ran: !isHeld });
    const measured = wait * 1e6 * (1 + noise * (2 * random.next().value - 1));
    const [db, other] = domainsOf({
      db1: [
        { comm: 'postgres', state: work > 0 ? 'running' : 'sleeping', ranNs: ran * 1e6, waitedNs: 0, cpu: 0 },
      ],
      batch: [{ comm: 'backup', state: isHeld ? 'held' : 'running', ranNs: batch * 1e6 }],
    });
    const host = { elapsedMs: TICK_MS, vcpus: [{ ranNs: ran * 1e6, waitedNs: measured }] };
    const domains: DomainView[] = [{ ...db!, host }, other!];
    const now = { ...world(domains, ['batch/backup'], (i + 1) * TICK_MS), elapsedMs: TICK_MS };
    const decision = policy(now, memory);
    memory = decision.memory;
    actions.push(...decision.actions);
    wanted = held(decision.actions).length > 0;
  }
  return { ticks, actions };
}

type SimulatedTicks = ReturnType<typeof simulate>['ticks'];

function windows<T>(ticks: readonly T[]): T[][] {
  return Array.from({ length: Math.floor(ticks.length / WINDOW_TICKS) }, (_, i) =>
    ticks.slice(i * WINDOW_TICKS, (i + 1) * WINDOW_TICKS),
  );
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

/** What the service may wait in a window, in ms, if all that it needs there is done. */
type Allowance = (ranMs: number) => number;
const UP_TO_TARGET: Allowance = () => TARGET_MS;

/** Part of the windows in which the service waited no longer than it may. */
function kept(ticks: SimulatedTicks, allowed = UP_TO_TARGET): number {
  const all = windows(ticks);
  const isKept = (some: SimulatedTicks) =>
    sum(some.map(({ wait }) => wait)) <= allowed(sum(some.map(({ served }) => served)));
  return all.filter(isKept).length / all.length;
}

/**
 * What a scheduler that knows the future, and can share a tick out, would leave the batch job: in each window it runs
 * in the ticks in which it costs the service least, until the target is used up.
 */
function perfect(demand: readonly number[], allowed = UP_TO_TARGET): number {
  return sum(
    windows(demand).map((some) => {
      let left = allowed(sum(some));
      return sum(
        some
          .toSorted((a, b) => a - b)
          .map((needs) => {
            const cost = Math.min(needs, TICK_MS / 2);
            const part = cost === 0 ? 1 : Math.min(1, left / cost);
            left -= part * cost;
            return part * (TICK_MS - cost);
          }),
      );
    }),
  );
}

/** The same where each tick's wait counts by itself: it may be more in one of a hundred ticks, the most useful ones. */
function perfectByLooks(demand: readonly number[], limitMs: number): number {
  const costs = demand.map((needs) => Math.min(needs, TICK_MS / 2));
  const kept = costs.map((cost) => Math.min(1, limitMs / Math.max(cost, limitMs)) * (TICK_MS - cost));
  const more = costs.map((cost, i) => TICK_MS - cost - kept[i]!).toSorted((a, b) => b - a);
  return sum(kept) + sum(more.slice(0, Math.floor(demand.length / 100)));
}

/** A load that changes every few seconds: nothing, a little, some, much. */
function changing(seconds: number, seed: number): number[] {
  const random = numbers(seed);
  const demand: number[] = [];
  while (demand.length < seconds * 10) {
    const level = [0, 0, 2, 12, 60][Math.floor(random.next().value * 5)]!;
    const length = 40 + Math.floor(random.next().value * 200);
    for (let i = 0; i < length; i++) demand.push(level * (0.7 + 0.6 * random.next().value));
  }
  return demand.slice(0, seconds * 10);
}

test('under changing load, with noise and late edits, the target is held and the batch job gets its due', (t) => {
  for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
    const demand = changing(600, seed);
    const { ticks } = simulate(make(), { demand, cpus: 1, noise: 0.2, late: 0.2, seed });
    const part = sum(ticks.map(({ batch }) => batch)) / perfect(demand);
    t.true(kept(ticks) >= 0.95, `${seed}: held in ${kept(ticks)} of the windows`);
    t.true(part >= 0.8, `${seed}: ${part} of what a perfect scheduler leaves`);
    const none = simulate(() => ({ actions: [] }), { demand, cpus: 1 });
    t.true(kept(none.ticks) < 0.8, `without a policy the target is missed: ${kept(none.ticks)}`);
  }
});

const SHARE = 0.8;
const LOADS = 30;
const P99_MS = 5;
const ofShare: Allowance = (ranMs) => (ranMs * (1 - SHARE)) / SHARE + 1e-9;
const looksOver = (ticks: SimulatedTicks) => ticks.filter(({ wait }) => wait > P99_MS).length / ticks.length;

interface Judged {
  readonly target: ProtectOptions['target'];
  /** The part of the time in which the target has to be held, and is. */
  readonly least: number;
  readonly isHeld: (ticks: SimulatedTicks) => number;
  readonly due: (demand: readonly number[]) => number;
}

const TARGETS: readonly Judged[] = [
  { target: { waitMs: TARGET_MS }, least: 0.95, isHeld: (ticks) => kept(ticks), due: (all) => perfect(all) },
  {
    target: { share: SHARE },
    ...{ least: 0.95, isHeld: (ticks) => kept(ticks, ofShare), due: (all) => perfect(all, ofShare) },
  },
  {
    target: { p99Ms: P99_MS },
    ...{ least: 0.99, isHeld: (ticks) => 1 - looksOver(ticks), due: (all) => perfectByLooks(all, P99_MS) },
  },
];

for (const { target, least, isHeld, due } of TARGETS) {
  test(`${JSON.stringify(target)}: held, and batch jobs get 80 % of what a perfect scheduler leaves`, (t) => {
    const runs: { held: number; without: number; batch: number; due: number }[] = [];
    // Not at random: a mean over a few dozen loads would be below its limit now and then.
    for (let seed = 1; seed <= LOADS; seed++) {
      const random = numbers(seed);
      const disturbed = { seed, noise: 0.2 * random.next().value, late: 0.2 * random.next().value };
      const demand = changing(200, seed);
      const { ticks } = simulate(make({ target }), { demand, cpus: 1, ...disturbed });
      const none = simulate(() => ({ actions: [] }), { demand, cpus: 1 });
      const batch = sum(ticks.map((tick) => tick.batch));
      const run = { held: isHeld(ticks), without: isHeld(none.ticks), batch, due: due(demand) };
      // A single load may consist of changes, at which nobody knows what is to come.
      t.true(run.held >= least - 0.1 && batch >= 0.5 * run.due, JSON.stringify({ seed, ...run }));
      runs.push(run);
    }
    const mean = (of: 'held' | 'without') => sum(runs.map((run) => run[of])) / runs.length;
    t.true(mean('held') >= least, `held ${mean('held')}`);
    t.true(mean('without') < least - 0.1, `without a policy ${mean('without')}`);
    const part = sum(runs.map(({ batch }) => batch)) / sum(runs.map((run) => run.due));
    t.true(part >= 0.8, `${part} of what a perfect scheduler leaves`);
    t.log(`held ${mean('held').toFixed(3)}, without ${mean('without').toFixed(3)}, batch ${part.toFixed(3)}`);
  });
}

test('each target says in its own words why it holds', (t) => {
  const say = (target: ProtectOptions['target'], waitedMs: number, windowMs?: number) => {
    const policy = make({ target, ...(windowMs !== undefined && { windowMs }) });
    let memory: unknown;
    let actions: readonly Action[] = [];
    for (const nowMs of [100, 200]) {
      const [db, other] = domainsOf({
        db1: [{ comm: 'postgres', state: 'running', ranNs: 60e6, waitedNs: 0, cpu: 0, pid: 42 }],
        batch: [{ comm: 'backup', state: 'running', ranNs: 40e6 }],
      });
      const host = { elapsedMs: TICK_MS, vcpus: [{ ranNs: 60e6, waitedNs: waitedMs * 1e6 }] };
      const seen = world([{ ...db!, host }, other!], ['batch/backup'], nowMs);
      ({ actions, memory } = policy({ ...seen, elapsedMs: TICK_MS }, memory));
    }
    return actions.flatMap((action) => (action.type === 'hold' ? [action.reason] : []));
  };
  const who = (reason: string) => [`held 2 % of the time: db1: postgres (42) ${reason}`];
  t.deepEqual(say({ waitMs: 5 }, 40), who('waited 80.0 ms in 1 s'));
  t.deepEqual(say({ share: 0.9 }, 40), who('had a CPU for 60 % of the time in which it wanted one, in 1 s'));
  t.deepEqual(say({ share: 0.5 }, 10), [], 'it has more than that');
  // Six of the 600 looks of a minute may be worse, and none of ten.
  t.deepEqual(say({ p99Ms: 5 }, 40), []);
  t.deepEqual(say({ p99Ms: 50 }, 40, 1_000), []);
  t.deepEqual(say({ p99Ms: 5 }, 40, 1_000), who('waited more than 5 ms at 2 of 10 looks, in 1 s'));
});

test('what is waited until a hold is done is part of what it costs to let subjects run', (t) => {
  for (const level of [12, 20]) {
    const { ticks } = simulate(make(), { demand: Array(1200).fill(level), cpus: 1, holdMs: 30 });
    t.true(kept(ticks) >= 0.95, `${level} ms: held in ${kept(ticks)} of the windows`);
    t.true(ticks.filter(({ ran }) => ran).length >= 60, `${level} ms: they still run`);
  }
});

test('whoever is let run although it is to be held, as by a guarantee, is not taken for a hold without an end', (t) => {
  const policy = make();
  let memory: unknown;
  const step = (tick: number, ran: number) => {
    const [db, other] = domainsOf({
      db1: [{ comm: 'postgres', state: 'running', ranNs: 20e6, waitedNs: 0, cpu: 0 }],
      batch: [{ comm: 'backup', state: 'running', ranNs: ran * 1e6 }],
    });
    const host = { elapsedMs: TICK_MS, vcpus: [{ ranNs: 20e6, waitedNs: ran === 0 ? 0 : 20e6 }] };
    const now = world([{ ...db!, host }, other!], ['batch/backup'], tick * TICK_MS);
    const decision = policy({ ...now, elapsedMs: TICK_MS }, memory);
    memory = decision.memory;
    return held(decision.actions);
  };
  const [run, rest] = [20, 10];
  for (let tick = 1; tick <= run; tick++) step(tick, 80);
  t.deepEqual(step(run + 1, 80), ['batch/backup']);
  const after = Array.from({ length: rest }, (_, i) => step(run + 2 + i, 0));
  // The window has nothing that was waited any more, and one tick costs 20 of 50 ms.
  t.deepEqual(after.at(-1), []);
});

test('on a host with a CPU to spare nobody is held', (t) => {
  const { ticks, actions } = simulate(make(), { demand: changing(300, 3), cpus: 2, noise: 0.2 });
  t.deepEqual(actions, []);
  t.true(ticks.every(({ ran }) => ran));
});

test('under a steady load it does not oscillate: each second has about as many ticks as the one before', (t) => {
  for (const level of [12, 20, 60]) {
    const { ticks } = simulate(make(), { demand: Array(1800).fill(level), cpus: 1, noise: 0.2, late: 0.2 });
    const counts = windows(ticks)
      .slice(20)
      .map((some) => some.filter(({ ran }) => ran).length);
    const mean = sum(counts) / counts.length;
    const deviation = Math.sqrt(sum(counts.map((count) => (count - mean) ** 2)) / counts.length);
    t.true(deviation < 1, `${level} ms: ${mean} ± ${deviation}`);
    t.true(mean <= TARGET_MS / level + 0.3, `${level} ms: no more than the target allows, ${mean}`);
    t.true(mean >= Math.floor(0.7 * (TARGET_MS / level)), `${level} ms: not much less, ${mean}`);
  }
});

/** How even the seconds are in which subjects run: the deviation of their ticks, and how often these swing up and down. */
function evenness(ticks: SimulatedTicks): { deviation: number; swings: number; waitMs: number } {
  const settled = ticks.slice(15 * WINDOW_TICKS);
  const counts = windows(settled).map((some) => some.filter(({ ran }) => ran).length);
  const mean = sum(counts) / counts.length;
  const steps = counts.slice(1).map((count, i) => count - counts[i]!);
  const isSwing = (step: number, i: number) =>
    step * steps[i]! < 0 && Math.min(Math.abs(step), Math.abs(steps[i]!)) >= 3;
  return {
    deviation: Math.sqrt(sum(counts.map((count) => (count - mean) ** 2)) / counts.length),
    swings: steps.slice(1).filter(isSwing).length / counts.length,
    waitMs: sum(settled.map(({ wait }) => wait)) / counts.length,
  };
}

test('whatever the load, the noise and the delays, it does not oscillate, and on average the target is held', (t) => {
  const host = fc.record({
    level: fc.double({ min: 4, max: 80, noNaN: true }),
    noise: fc.double({ min: 0, max: 0.3, noNaN: true }),
    late: fc.double({ min: 0, max: 0.25, noNaN: true }),
    seed: fc.integer({ min: 1, max: 1e6 }),
  });
  const demand = (level: number): number[] => Array(600).fill(level);
  fc.assert(
    fc.property(host, ({ level, ...rest }) => {
      const { ticks } = simulate(make(), { demand: demand(level), cpus: 1, ...rest });
      const { deviation, swings, waitMs } = evenness(ticks);
      return deviation < 2 && swings < 0.15 && waitMs < TARGET_MS;
    }),
    { numRuns: 100 },
  );
  // One that holds for a second after each second in which the target was missed does.
  const naive: Policy = ({ domains, subjects, nowMs }, memory) => {
    const before = (memory ?? { waitedNs: 0, hold: false }) as { waitedNs: number; hold: boolean };
    const waitedNs = before.waitedNs + sum(domains[0]!.host!.vcpus.map((vcpu) => vcpu.waitedNs));
    const isOver = nowMs % (WINDOW_TICKS * TICK_MS) === 0;
    const hold = isOver ? waitedNs > TARGET_MS * 1e6 : before.hold;
    return {
      actions: hold ? [...subjects].map((process) => ({ type: 'hold', process, reason: '' })) : [],
      memory: { waitedNs: isOver ? 0 : waitedNs, hold },
    };
  };
  const { deviation, swings } = evenness(simulate(naive, { demand: demand(20), cpus: 1 }).ticks);
  t.true(deviation > 2 && swings > 0.15, `${deviation}, ${swings}`);
});

test('what it does it explains, and the wait of a guest’s own queue is no other guest’s fault', (t) => {
  const policy = make({ windowMs: 1_000 });
  const step = (memory: unknown, nowMs: number) => {
    const domains = domainsOf({
      db1: [
        { comm: 'postgres', state: 'ready', ranNs: 5e7, waitedNs: 8e7, cpu: 0, pid: 42 },
        { comm: 'vacuum', state: 'running', ranNs: 5e7 },
      ],
      batch: [{ comm: 'backup', state: 'running', ranNs: 1e8 }],
    });
    const host = { elapsedMs: TICK_MS, vcpus: [{ ranNs: 1e8, waitedNs: 0 }] };
    const views = [{ ...domains[0]!, host }, domains[1]!];
    return policy({ ...world(views, ['db1/vacuum', 'batch/backup'], nowMs), elapsedMs: TICK_MS }, memory);
  };
  const first = step(undefined, 100);
  const { actions } = step(first.memory, 200);
  t.deepEqual(held(actions), ['db1/vacuum']);
  const hold = actions.find(({ type }) => type === 'hold')!;
  t.regex(hold.reason, /^held \d+ % of the time: db1: postgres \(42\) waited 160\.0 ms in 1 s$/);
  const nice = actions.find(({ type }) => type === 'nice');
  t.like(nice, { process: 'db1/vacuum', nice: 19 });
});

test('without an account of the kernel the state at a look has to do; without one of the host all may be to blame', (t) => {
  const policy = make();
  const step = (memory: unknown, nowMs: number) => {
    const domains = domainsOf({
      db1: [{ comm: 'postgres', state: 'ready', ranNs: 2e7 }],
      batch: [{ comm: 'backup', state: 'running', ranNs: 1e8 }],
    });
    return policy({ ...world(domains, ['batch/backup'], nowMs), elapsedMs: TICK_MS }, memory);
  };
  t.deepEqual(held(step(step(undefined, 100).memory, 200).actions), ['batch/backup']);
});
