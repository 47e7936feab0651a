import test from 'ava';
import fc from 'fast-check';
import { Blame, type BlameResult } from '../../../runtime/blame/blame.ts';
import { Ledger } from '../../../runtime/blame/ledger.ts';
import type { AccountSample, DomainTimes, GuestThreadTimes } from '../../../runtime/blame/sample.ts';
import { permilles, split } from '../../../runtime/blame/split.ts';
import { MS, type Scene, sampleAt } from './samples.ts';

/** Of one domain, in ms by culprit: `web gzip`, `host make`, `db (cap)`. */
function blamed(samples: readonly AccountSample[], id = 'pid:1', who?: string) {
  const blame = new Blame(id, ({ comm }) => who === undefined || comm === who);
  for (const sample of samples) blame.add(sample);
  const result = blame.result();
  const shares = result.shares.map(({ culprit: { kind, domain, comm }, waitedNs, place }) => [
    `${place}: ${[domain ?? kind, comm ?? `(${kind})`].join(' ')}`,
    waitedNs / MS,
  ]);
  return { result, shares: Object.fromEntries(shares) as Record<string, number> };
}

const db = (ran: number, waited: number, threads: Scene['threads']): Scene => ({
  name: 'db',
  pid: 1,
  ran,
  waited,
  threads,
});
const web = (ran: number, waited: number, threads: Scene['threads']): Scene => ({
  name: 'web',
  pid: 2,
  ran,
  waited,
  threads,
});

test('waits on the host are those of who ran there, down to the processes of another guest', (t) => {
  const { result, shares } = blamed([
    sampleAt(0, [db(0, 0, { postgres: [0, 0] }), web(0, 0, { gzip: [0, 0], nginx: [0, 0] })]),
    sampleAt(1000, [
      db(250, 750, { postgres: [1000, 0] }),
      // The guest counts time in which its vCPU waited, as kernels without steal time do.
      web(750, 250, { gzip: [800, 0], nginx: [200, 0] }),
    ]),
  ]);
  t.deepEqual(shares, { 'host: web gzip': 600, 'host: web nginx': 150 });
  t.like(result, { waitedNs: 750 * MS, ranNs: 250 * MS, elapsedNs: 1000 * MS, samples: 2 });
  t.deepEqual(
    result.shares.map(({ permille }) => permille),
    [800, 200],
  );
});

test('waits in a guest’s queue are those of who ran there, but for the time in which its vCPU waited', (t) => {
  const { shares } = blamed(
    [
      sampleAt(0, [db(0, 0, { postgres: [0, 0], vacuum: [0, 0] }), web(0, 0, { gzip: [0, 0] })]),
      sampleAt(1000, [
        db(500, 500, { postgres: [400, 600], vacuum: [600, 400] }),
        web(500, 500, { gzip: [1000, 0] }),
      ]),
    ],
    'pid:1',
    'postgres',
  );
  // Half of its 600 in the queue, and its 40 % of the vCPU's own waits.
  t.deepEqual(shares, { 'guest: db vacuum': 300, 'host: web gzip': 300 + 200 });
});

test('who ran on other CPUs of the host is not blamed; processes of the host are', (t) => {
  const at = (ms: number): AccountSample =>
    sampleAt(
      ms,
      [db(ms / 4, (3 * ms) / 4, { postgres: [ms, 0] }), { ...web(ms, 0, { gzip: [ms, 0] }), hostCpu: 1 }],
      { make: { ran: (3 * ms) / 4, cpu: 0 }, dd: { ran: ms, cpu: 1 } },
    );
  t.deepEqual(blamed([at(0), at(1000)]).shares, { 'host: host make': 750 });
});

test('a guest that claims more than it was given: no other’s account changes, and it is said', (t) => {
  const at = (ms: number, forged: number): AccountSample =>
    sampleAt(ms, [
      db(ms / 2, ms / 2, { postgres: [ms, 0] }),
      web(ms / 4, 0, { gzip: [ms / 4, 0], forged: [forged, 0] }),
      { name: 'batch', pid: 3, ran: ms / 4, waited: 0, threads: { sort: [ms / 4, 0] } },
    ]);
  const honest = blamed([at(0, 0), at(1000, 0)]);
  const lied = blamed([at(0, 0), at(1000, 1e9)]);
  t.deepEqual(honest.shares, { 'host: web gzip': 250, 'host: batch sort': 250 });
  t.is(lied.shares['host: batch sort'], 250);
  t.is(lied.result.waitedNs, 500 * MS);
  t.true(lied.result.audits.get('web')!.claimsTooMuch);
  for (const name of ['db', 'batch']) t.false(lied.result.audits.get(name)!.claimsTooMuch, name);
  t.false(honest.result.audits.get('web')!.claimsTooMuch);
});

test('a guest that says that it waits for ever waits no longer than time passes', (t) => {
  const at = (ms: number, waited: number) =>
    sampleAt(ms, [db(ms, 0, { postgres: [ms, 0], liar: [0, waited] })]);
  const { result } = blamed([at(0, 0), at(500, 1e12), at(1000, 2e12)]);
  t.true(result.waitedNs <= 1250 * MS, String(result.waitedNs));
  t.true(result.waitedNs >= 1000 * MS);
});

test('a wait that is told late, all at once, is counted', (t) => {
  const at = (ms: number, waited: number) => sampleAt(ms, [db(ms, 0, { a: [ms, 0], b: [0, waited] })]);
  t.deepEqual(blamed([at(0, 0), at(100, 0), at(200, 200)], 'pid:1', 'b').shares, { 'guest: db a': 200 });
});

test('its own cap is nobody else’s fault', (t) => {
  const at = (ms: number): AccountSample => {
    const sample = sampleAt(ms, [db(ms / 2, ms / 2, { postgres: [ms, 0] }), web(ms / 10, 0, {})]);
    const [first, ...rest] = sample.domains;
    return { ...sample, domains: [{ ...first!, cappedNs: (ms / 5) * 2 * MS }, ...rest] };
  };
  t.deepEqual(blamed([at(0), at(1000)]).shares, { 'host: db (cap)': 400, 'host: web (guest)': 100 });
});

test('a kernel that accounts no waits: by who was ready at the samples', (t) => {
  const at = (ms: number): AccountSample => {
    const sample = sampleAt(ms, [db(ms, 0, { postgres: [ms / 4], vacuum: [(ms * 3) / 4] })]);
    const domains = sample.domains.map((domain) => ({
      ...domain,
      threads: domain.threads.map((thread) => ({ ...thread, ready: thread.comm === 'postgres' })),
    }));
    return { ...sample, domains };
  };
  const { result, shares } = blamed([at(0), at(1000)]);
  t.deepEqual(shares, { 'guest: db vacuum': 750 });
  t.false(result.audits.get('db')!.accountsWaits);
});

test('vCPUs that come, go and are replaced, and counters that go back, are nobody’s waits', (t) => {
  const samples = [
    sampleAt(0, [db(500, 900, { postgres: [500, 300] })]),
    sampleAt(100, [{ ...db(0, 0, { postgres: [0, 0] }), pid: 1 }]),
    {
      ms: 200,
      threads: [],
      domains: sampleAt(0, [db(0, 0, {})]).domains.map((each) => ({ ...each, vcpus: [] })),
    },
    sampleAt(300, [db(0, 0, { postgres: [0, 0] })]),
  ];
  t.deepEqual(blamed(samples).shares, {});
  // Nor does a sample that is not later than the last one.
  const again = sampleAt(300, [db(1000, 1000, { postgres: [1, 1000] })]);
  t.deepEqual(blamed([...samples, again]).shares, {});
});

test('a guest that cannot be read is blamed as a whole', (t) => {
  const at = (ms: number): AccountSample => {
    const sample = sampleAt(ms, [db(ms / 2, ms / 2, { postgres: [ms, 0] }), web(ms / 2, 0, {})]);
    const [first, second] = sample.domains;
    return { ...sample, domains: [first!, { ...second!, error: { code: 'layout-unknown', message: '' } }] };
  };
  const { result, shares } = blamed([at(0), at(1000)]);
  t.deepEqual(shares, { 'host: web (guest)': 500 });
  t.false(result.audits.get('web')!.isRead);
});

test('each CPU of a guest has its own waits where the host tells its vCPUs apart', (t) => {
  const at = (ms: number): AccountSample => {
    const guest: DomainTimes = {
      id: 'pid:1',
      name: 'db',
      pid: 1,
      cpus: [0, 1],
      vcpus: [
        { vcpu: 0, tid: 20, ranNs: ms * MS, waitedNs: 0, cpu: 0 },
        { vcpu: 1, tid: 21, ranNs: (ms / 2) * MS, waitedNs: (ms / 2) * MS, cpu: 1 },
      ],
      threads: [thread('free', 0, ms), thread('squeezed', 1, ms)],
    };
    const host = (tid: number, pid: number, cpu: number, ran: number) => {
      return { tid, pid, comm: `host-${tid}`, cpu, ranNs: ran * MS, waitedNs: 0 };
    };
    const threads = [host(20, 1, 0, ms), host(21, 1, 1, ms / 2), host(30, 30, 1, ms / 2)];
    return { ms, threads, domains: [guest] };
  };
  t.deepEqual(blamed([at(0), at(1000)], 'pid:1', 'free').shares, {});
  t.deepEqual(blamed([at(0), at(1000)], 'pid:1', 'squeezed').shares, { 'host: host host-30': 500 });
});

function thread(comm: string, cpu: number, ran: number): GuestThreadTimes {
  return { key: comm, pid: 7, comm, cpu, ranNs: ran * MS, waitedNs: 0, ready: false };
}

// What a counter may be: small steps mostly, and anything at all.
const counter = fc.oneof(
  { weight: 5, arbitrary: fc.integer({ min: 0, max: 3e9 }) },
  fc.constantFrom(-1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 64, -(2 ** 63), 0.5),
);
const cpu = fc.integer({ min: -1, max: 3 });
const guestThread = fc.record(
  {
    key: fc.constantFrom('a', 'b', 'c', 'd'),
    pid: fc.integer({ min: 0, max: 3 }),
    comm: fc.constantFrom('x', 'y', 'z'),
    cpu,
    ranNs: counter,
    waitedNs: counter,
    ready: fc.boolean(),
  },
  { requiredKeys: ['key', 'pid', 'comm', 'cpu', 'ranNs', 'ready'] },
);
const vcpu = fc.record(
  {
    vcpu: fc.integer({ min: 0, max: 2 }),
    tid: fc.integer({ min: 1, max: 6 }),
    ranNs: counter,
    waitedNs: counter,
    cpu,
  },
  { requiredKeys: ['vcpu', 'ranNs'] },
);
const aDomain = (id: string) =>
  fc.record(
    {
      id: fc.constant(id),
      name: fc.constantFrom('db', 'web'),
      pid: fc.integer({ min: 1, max: 4 }),
      cpus: fc.uniqueArray(fc.integer({ min: 0, max: 2 })),
      vcpus: fc.array(vcpu, { maxLength: 3 }),
      threads: fc.array(guestThread, { maxLength: 5 }),
      cappedNs: counter,
    },
    { requiredKeys: ['id', 'name', 'cpus', 'vcpus', 'threads'] },
  );
const hostThread = fc.record({
  tid: fc.integer({ min: 1, max: 8 }),
  pid: fc.integer({ min: 1, max: 8 }),
  comm: fc.constantFrom('make', 'dd'),
  cpu,
  ranNs: counter,
  waitedNs: counter,
});
const aSample = fc.record({
  ms: fc.integer({ min: 0, max: 5000 }),
  threads: fc.array(hostThread, { maxLength: 6 }),
  domains: fc.tuple(aDomain('one'), aDomain('two')),
}) as fc.Arbitrary<AccountSample>;

test('whatever samples say, shares are whole, positive and add up', (t) => {
  const whole = (ns: number) => Number.isSafeInteger(ns) && ns > 0;
  const adds = ({ shares, victims, waitedNs }: BlameResult) => {
    const sum = (list: readonly { waitedNs: number }[]) => list.reduce((all, each) => all + each.waitedNs, 0);
    t.is(sum(shares), waitedNs);
    t.is(sum(victims), waitedNs);
    t.is(
      shares.reduce((all, { permille }) => all + permille, 0),
      shares.length > 0 ? 1000 : 0,
    );
  };
  fc.assert(
    fc.property(fc.array(aSample, { minLength: 2, maxLength: 5 }), (samples) => {
      const ledger = new Ledger();
      for (const sample of samples) for (const { ns } of ledger.add(sample)?.charges ?? []) t.true(whole(ns));
      for (const id of ['one', 'two']) adds(blamed(samples, id).result);
    }),
    { numRuns: 500 },
  );
});

test('on one host CPU: all waits of vCPUs that ran anything are charged, to the last ns', (t) => {
  const scene = (name: string, pid: number) =>
    fc.record({
      name: fc.constant(name),
      pid: fc.constant(pid),
      ran: fc.integer({ min: 1, max: 1000 }),
      waited: fc.integer({ min: 0, max: 1000 }),
      threads: fc.record({
        a: fc.tuple(fc.integer({ min: 1, max: 1000 }), fc.constant(0)),
        b: fc.tuple(fc.integer({ min: 0, max: 1000 }), fc.constant(0)),
      }),
    }) as fc.Arbitrary<Scene>;
  fc.assert(
    fc.property(fc.tuple(scene('db', 1), scene('web', 2)), (scenes) => {
      const still = scenes.map((each) => ({
        ...each,
        ran: 0,
        waited: 0,
        threads: { a: [0, 0], b: [0, 0] } as const,
      }));
      const { result } = blamed([sampleAt(0, still), sampleAt(1000, scenes)]);
      t.is(result.waitedNs, scenes[0].waited * MS);
      t.true(result.shares.every(({ culprit }) => culprit.domain === 'web'));
    }),
  );
});

test('split: whole parts whose sum is the whole, each within one of its due', (t) => {
  fc.assert(
    fc.property(fc.nat(2 ** 31), fc.array(fc.nat(1e6), { minLength: 1, maxLength: 20 }), (total, weights) => {
      const parts = split(total, weights);
      const sum = weights.reduce((a, b) => a + b, 0);
      t.is(
        parts.reduce((a, b) => a + b, 0),
        sum > 0 ? total : 0,
      );
      for (const [i, part] of parts.entries())
        t.true(sum === 0 || Math.abs(part - (total * weights[i]!) / sum) <= 1);
    }),
  );
  t.deepEqual(split(10, [Number.NaN, -1, 1, Number.POSITIVE_INFINITY]), [0, 0, 10, 0]);
  t.deepEqual(permilles([1, 1, 1]), [334, 333, 333]);
  t.deepEqual(permilles([0, 0]), [0, 0]);
});
