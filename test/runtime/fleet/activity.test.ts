/** What a host tells of itself, and how long it counts for others: pure, over made-up processes and clocks. */
import test from 'ava';
import fc from 'fast-check';
import { type ActivityClass, aggregate, keyOf, settle, type Told } from '../../../runtime/fleet/activity.ts';
import { Leases, remoteDomains } from '../../../runtime/fleet/leases.ts';
import { type ActivityMessage, decode, encode, MOST_BYTES } from '../../../runtime/fleet/message.ts';
import { matcher, type SelectorSpec } from '../../../runtime/policy/selector.ts';
import type { ProcessView } from '../../../runtime/policy/world.ts';
import { processOf } from '../policy/worlds.ts';

const SELECTORS: readonly SelectorSpec[] = [
  { comm: 'a*' },
  { comm: ['b', 'ab'] },
  { domain: 'db', user: 7 },
  { host: 'here' },
];
const NONE: ReadonlySet<string> = new Set();

const processes = fc.array(
  fc.record({
    comm: fc.constantFrom('a', 'ab', 'b', 'c', 'kworker'),
    domain: fc.constantFrom('db', 'web'),
    uid: fc.constantFrom(0, 7),
    pid: fc.integer({ min: 1, max: 9 }),
    state: fc.constantFrom('running', 'ready', 'sleeping', 'held') as fc.Arbitrary<ProcessView['state']>,
    ranNs: fc.integer({ min: 0, max: 2e9 }),
    kernelThread: fc.boolean(),
  }),
  { maxLength: 40 },
);

function viewsOf(sketches: readonly (Partial<ProcessView> & { comm: string; domain: string })[]) {
  return ['db', 'web'].map((domain) => ({
    id: domain,
    name: domain,
    vcpus: 1,
    processes: sketches
      .filter((one) => one.domain === domain)
      .map((one, i) => processOf(domain, { ...one, key: `${domain} ${i}` })),
  }));
}

test('a class says of every process in it what each selector says, and of the busiest how busy it is at least', (t) => {
  fc.assert(
    fc.property(processes, fc.constantFrom(0.01, 0.05, 0.3), (sketches, threshold) => {
      const domains = viewsOf(sketches);
      const match = matcher(SELECTORS, 'here');
      const { classes } = aggregate(domains, 1_000, match, [threshold], NONE);
      const found = new Map(classes.map((one) => [keyOf(one), one]));
      t.is(found.size, classes.length, 'a class is told once');
      for (const process of domains.flatMap((domain) => domain.processes)) {
        const share = process.state === 'held' ? 0 : process.ranNs / 1e9;
        const told = found.get(keyOf({ matched: match(process), first: process.pid <= 1 }));
        // What makes a process busy for a policy is never lost, and nobody is busier than somebody is.
        if (!process.kernelThread && share >= threshold) t.true(told!.share >= threshold);
        if (!process.kernelThread && share >= 0.001) t.truthy(told);
      }
      for (const one of classes) {
        const mine = domains
          .flatMap((domain) => domain.processes)
          .filter(
            (process) =>
              !process.kernelThread &&
              keyOf(one) === keyOf({ matched: match(process), first: process.pid <= 1 }),
          );
        t.true(
          Math.max(...mine.map(({ ranNs, state }) => (state === 'held' ? 0 : ranNs))) / 1e9 >= one.share,
        );
      }
    }),
  );
});

test('a process waits if it does so at two looks; held ones and kernel threads say nothing', (t) => {
  const domains = viewsOf([
    { comm: 'a', domain: 'db', state: 'ready' },
    { comm: 'c', domain: 'db', state: 'held', ranNs: 1e9 },
    { comm: 'kworker', domain: 'db', state: 'running', ranNs: 1e9, kernelThread: true },
  ]);
  const first = aggregate(domains, 1_000, matcher(SELECTORS), [], NONE);
  t.deepEqual(first.classes, []);
  const second = aggregate(domains, 1_000, matcher(SELECTORS), [], first.waiting);
  t.deepEqual(
    second.classes.map(({ who, share, waits }) => [who.comm, share, waits]),
    [['a', 0, true]],
  );
});

const one = (share: number, name = 'x'): ActivityClass => ({
  matched: [name],
  first: false,
  share,
  waits: false,
  who: { domain: 'db', comm: name, pid: 7 },
});

test('more is told at once, less after a second, and what stays the same never', (t) => {
  let told: Told = new Map();
  const look = (nowMs: number, ...classes: ActivityClass[]) => {
    const next = settle(told, classes, nowMs);
    told = next.told;
    return [next.changed, [...told.values()].map((entry) => entry.told.share)];
  };
  t.deepEqual(look(0, one(0.1)), [true, [0.1]]);
  t.deepEqual(look(500, one(0.1)), [false, [0.1]]);
  t.deepEqual(look(1_000, one(1)), [true, [1]]);
  t.deepEqual(look(1_500), [false, [1]]);
  t.deepEqual(look(2_000, one(1)), [false, [1]], 'it works in bursts');
  t.deepEqual(look(2_500, one(0.1)), [false, [1]]);
  t.deepEqual(look(3_500, one(0.1)), [true, [0.1]]);
  t.deepEqual(look(4_000), [false, [0.1]]);
  t.deepEqual(look(5_000), [true, []]);
});

test('whatever the looks were, after a steady second others know just what is', (t) => {
  const looks = fc.array(fc.array(fc.constantFrom(one(0.1), one(1), one(0.01, 'y')), { maxLength: 2 }), {
    maxLength: 20,
  });
  fc.assert(
    fc.property(looks, (all) => {
      let told: Told = new Map();
      const at = (classes: readonly ActivityClass[], nowMs: number) => {
        told = settle(told, [...new Map(classes.map((each) => [keyOf(each), each])).values()], nowMs).told;
        for (const each of classes) t.true(told.get(keyOf(each))!.told.share >= 0.01);
      };
      for (const [i, classes] of all.entries()) at(classes, i * 500);
      const last = all.at(-1) ?? [];
      for (const wait of [0, 500, 1_000]) at(last, all.length * 500 + wait);
      const now = new Map(last.map((each) => [keyOf(each), each.share]));
      t.deepEqual([...told].map(([key, entry]) => [key, entry.told.share]).sort(), [...now].sort());
    }),
  );
});

const message = (facts: Partial<ActivityMessage> = {}): ActivityMessage => ({
  run: 'run',
  seq: 1,
  leaseMs: 5_000,
  rests: false,
  classes: [one(1)],
  ...facts,
});

test('a host counts for two leases after its last word, by the clock of whoever heard it', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 20_000 }), { minLength: 1, maxLength: 10 }),
      fc.integer({ min: 1_000, max: 60_000 }),
      // Clocks of two hosts have nothing in common: the receiver's may start anywhere.
      fc.integer({ min: -1e9, max: 1e9 }),
      (gaps, leaseMs, startMs) => {
        const leases = new Leases();
        let nowMs = startMs;
        for (const [i, gap] of gaps.entries()) {
          nowMs += gap;
          const silent = i > 0 && gap >= 2 * leaseMs;
          t.deepEqual(leases.expire(nowMs), silent ? ['b'] : []);
          t.is(leases.isActive, i > 0 && !silent);
          leases.hear('b', message({ seq: i + 1, leaseMs }), nowMs);
          t.is(remoteDomains(leases.all(), 500).length, 1);
        }
        t.deepEqual(leases.expire(nowMs + 2 * leaseMs - 1), []);
        t.deepEqual(leases.expire(nowMs + 2 * leaseMs), ['b']);
        t.deepEqual(leases.expire(nowMs + 3 * leaseMs), [], 'told once');
        t.deepEqual(remoteDomains(leases.all(), 500), []);
      },
    ),
  );
});

test('an older word does not count, one of a new start does; who rests is never silent', (t) => {
  const leases = new Leases();
  leases.hear('b', message({ seq: 5 }), 0);
  t.is(leases.hear('b', message({ seq: 4, classes: [] }), 1), 'old');
  t.true(leases.isActive);
  t.is(leases.hear('b', message({ run: 'again', rests: true, classes: [] }), 2), undefined);
  t.false(leases.isActive);
  t.deepEqual(leases.expire(1e9), []);
  t.deepEqual(
    leases.all().map(({ host, state }) => [host, state]),
    [['b', 'at rest']],
  );
});

test('a forger of names gets no more than so many places, and not those of hosts at work', (t) => {
  const leases = new Leases();
  leases.hear('real', message(), 0);
  for (let i = 0; i < 10_050; i++) leases.hear(`forged-${i}`, message({ rests: true, classes: [] }), 1);
  t.is(leases.all().length, 10_000);
  t.true(leases.isActive);
  for (let i = 0; i < 10_050; i++) leases.hear(`busy-${i}`, message(), 2);
  t.is(leases.all().length, 10_000);
  t.is(leases.hear('late', message(), 3), 'too many hosts');
  t.is(leases.hear('real', message({ seq: 2 }), 4), undefined);
});

test('what is written is read again, and never longer than what is read', (t) => {
  const word = fc.stringMatching(/^[\w-]{1,16}$/);
  const classes = fc.array(
    fc.record({
      matched: fc.array(word, { maxLength: 200 }),
      first: fc.boolean(),
      share: fc.constantFrom(0, 0.001, 0.1, 1),
      waits: fc.boolean(),
      who: fc.record({
        domain: fc.stringMatching(/^[\x20-\x7e]{0,64}$/),
        comm: fc.stringMatching(/^[\x20-\x7e]{0,64}$/),
        pid: fc.integer({ min: 0, max: 4_194_304 }),
      }),
    }),
    { maxLength: 64 },
  );
  fc.assert(
    fc.property(classes, (all) => {
      const text = encode(message({ classes: all }));
      t.true(Buffer.byteLength(text) <= MOST_BYTES);
      const read = decode(Buffer.from(text)) as ActivityMessage;
      t.deepEqual(read, message({ classes: all.slice(0, read.classes.length) }));
    }),
    { numRuns: 50 },
  );
});

test('a later version is named as such; unknown keys of this one are left out; nothing else is taken', (t) => {
  const good = JSON.parse(encode(message()));
  const read = (value: unknown) => decode(Buffer.from(JSON.stringify(value)));
  t.deepEqual(read({ ...good, mood: 'fine', classes: [{ ...good.classes[0], colour: 1 }] }), message());
  t.is(read({ ...good, v: 2 }), 'another version');
  t.is(read({ v: 7, anything: [] }), 'another version');
  for (const wrong of [
    { ...good, seq: 0 },
    { ...good, lease: 1e9 },
    { ...good, lease: -1 },
    { ...good, run: 'x'.repeat(33) },
    { ...good, classes: Array(65).fill(good.classes[0]) },
    { ...good, classes: [{ ...good.classes[0], share: -1 }] },
    { ...good, classes: [{ ...good.classes[0], who: { domain: 'a\u001b[2J', comm: 'x', pid: 1 } }] },
    { ...good, classes: undefined },
    [],
    null,
    'text',
  ])
    t.is(read(wrong), 'not readable', JSON.stringify(wrong).slice(0, 80));
  t.is(decode(Buffer.alloc(MOST_BYTES + 1, '[')), 'too long');
  t.is(decode(Buffer.from([0xff, 0xfe, 0x00])), 'not readable');
  t.is(decode(Buffer.from('['.repeat(MOST_BYTES))), 'not readable');
});

test('10,000 messages, made up and mutated: none throws, none is taken that says too much', (t) => {
  const good = Buffer.from(encode(message({ classes: [one(1), one(0.1, 'y')] })));
  const mutated = fc
    .tuple(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 }), fc.nat(good.length))
    .map(([changes, length]) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of changes) bytes[at] = value;
      return bytes.subarray(0, Math.max(1, length > good.length / 2 ? good.length : length));
    });
  const json = fc.json().map((text) => Buffer.from(text));
  let taken = 0;
  fc.assert(
    fc.property(fc.oneof(mutated, json, fc.uint8Array({ maxLength: 300 })), (bytes) => {
      const read = decode(bytes);
      if (typeof read === 'string') return;
      taken++;
      const leases = new Leases();
      leases.hear('x', read, 0);
      for (const { processes } of remoteDomains(leases.all(), 500))
        for (const { ranNs, comm } of processes)
          if (!(ranNs >= 0 && ranNs <= 8192 * 500e6) || /[^\x20-\x7e]/.test(comm)) throw new Error(comm);
      if (leases.all()[0]!.message.leaseMs > 60_000) throw new Error('a lease without end');
    }),
    { numRuns: 10_000 },
  );
  t.true(taken > 0, 'some mutations are still messages');
});
