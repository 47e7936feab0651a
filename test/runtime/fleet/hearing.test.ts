/** Whom a host listens to of many that work: over made-up hosts, words and clocks. */
import test from 'ava';
import fc from 'fast-check';
import {
  FEW,
  Hearing,
  MANY,
  QUESTION_MS,
  WITNESSES,
  type WorkQuestion,
} from '../../../runtime/fleet/hearing.ts';
import type { ActivityMessage } from '../../../runtime/fleet/message.ts';

const LEASE_MS = 5_000;
/** Whether one uses this part of a CPU. */
const uses = (share: number): WorkQuestion => ({
  name: `${share}`,
  isAnsweredBy: ({ ranNs }) => ranNs >= share * QUESTION_MS * 1e6,
});
const isBusy = uses(0.01);

/** Others as they are, each saying what it does as the fleet's hosts do; what is said to whom listens. */
class Others {
  readonly hearing = new Hearing(LEASE_MS, () => this.#random());
  nowMs = 0;
  delivered = 0;
  readonly #hosts = new Map<string, { share: number; seq: number; saidMs: number }>();
  #seed = 1;

  /** @param share part of a CPU; of 0 it rests */
  does(name: string, share: number): void {
    const host = this.#hosts.get(name) ?? { share: 0, seq: 0, saidMs: 0 };
    this.#hosts.set(name, { ...host, share });
    this.say(name);
  }

  say(name: string): void {
    const host = this.#hosts.get(name)!;
    host.seq++;
    host.saidMs = this.nowMs;
    const { subjects } = this.hearing;
    if (!subjects.has('*') && !subjects.has(name)) return;
    this.delivered++;
    this.hearing.hear(name, message(host.seq, host.share), this.nowMs);
  }

  /** Time passes by half seconds; whoever works says so once in a lease. */
  pass(ms: number): void {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += 500;
      for (const [name, { share, saidMs }] of this.#hosts)
        if (share > 0 && this.nowMs - saidMs >= LEASE_MS) this.say(name);
      this.hearing.look(this.nowMs);
    }
  }

  /** Parts of a CPU that are used. */
  get shares(): number[] {
    return [...this.#hosts.values()].map(({ share }) => share);
  }

  /** And those that are believed to be. */
  get knownShares(): number[] {
    return this.hearing.hosts.flatMap(({ state, message: { classes } }) =>
      state === 'active' ? classes.map(({ share }) => share) : [],
    );
  }

  get atWork(): string[] {
    return [...this.#hosts].flatMap(([name, { share }]) => (share >= 0.01 ? [name] : []));
  }

  /** Hosts that are believed to work. */
  get known(): string[] {
    return this.hearing.hosts.flatMap(({ host, state, message: { classes } }) =>
      state === 'active' && classes[0]!.share >= 0.01 ? [host] : [],
    );
  }

  #random(): number {
    this.#seed = (this.#seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return this.#seed / 2 ** 31;
  }
}

function message(seq: number, share: number): ActivityMessage {
  const who = { domain: 'd', comm: 'c', pid: 7 };
  const classes = share > 0 ? [{ matched: [], first: false, share, waits: false, who }] : [];
  return { run: 'r', seq, leaseMs: LEASE_MS, rests: share === 0, classes };
}

function many(count: number, minded: Parameters<Hearing['watch']>[0] = { questions: [isBusy] }): Others {
  const others = new Others();
  others.hearing.watch(minded, 0);
  for (let i = 0; i < count; i++) others.does(`h${i}`, 1);
  return others;
}

test('of a fleet with few at work all are heard, of one with many only so many as are enough', (t) => {
  const small = many(MANY - 1);
  t.deepEqual([...small.hearing.subjects], ['*']);
  t.is(small.known.length, MANY - 1);
  const large = many(500);
  t.false(large.hearing.subjects.has('*'));
  t.true(large.hearing.isEnough);
  t.deepEqual([...large.hearing.subjects].sort(), large.known.sort());
  t.is(large.known.length, WITNESSES);
  // In a lease each of them says one word, and the others say 484 that nobody passes on.
  large.delivered = 0;
  large.pass(LEASE_MS);
  t.is(large.delivered, WITNESSES);
});

test('who is not enough for any policy does not count, and one that a policy names is always heard', (t) => {
  const light = many(0, { hosts: ['db'], questions: [isBusy] });
  for (let i = 0; i < 200; i++) light.does(`h${i}`, 0.001);
  t.true(light.hearing.subjects.has('*'));
  for (let i = 0; i < MANY; i++) light.does(`b${i}`, 1);
  t.false(light.hearing.subjects.has('*'));
  t.true(light.hearing.subjects.has('db'));
  light.does('db', 0.001);
  t.truthy(light.hearing.hosts.find(({ host }) => host === 'db'));
  const two = many(300, { questions: [isBusy, uses(2)] });
  t.true(two.hearing.subjects.has('*'), 'nobody answers the second');
});

test('without questions nobody is left out, and hosts that are named are heard alone', (t) => {
  const all = many(300, {});
  t.deepEqual([...all.hearing.subjects], ['*']);
  t.is(all.known.length, 300);
  const named = many(300, { hosts: ['h7', 'h9'] });
  t.deepEqual([...named.hearing.subjects], ['h7', 'h9']);
  t.deepEqual(named.known, ['h7', 'h9']);
  // A word that was on its way when they became the only ones.
  named.hearing.hear('h1', message(9, 1), named.nowMs);
  t.deepEqual(named.known, ['h7', 'h9']);
});

test('only what is asked now counts: who asks again for what nobody is known to do hears all', (t) => {
  const asks = (...questions: WorkQuestion[]) => {
    others.hearing.ask(new Set(questions.map(({ name }) => name)), others.nowMs);
    return others.hearing.subjects.has('*');
  };
  const others = many(300, { hosts: ['db'], questions: [isBusy, uses(2)] });
  t.true(asks(isBusy, uses(2)));
  t.false(asks(isBusy));
  t.is(others.known.length, WITNESSES);
  t.true(asks(isBusy, uses(2)), 'one that does more may be among those that were not heard');
  others.does('h1', 3);
  t.is(others.hearing.hosts.find(({ host }) => host === 'h1')!.message.classes[0]!.share, 3);
  others.pass(LEASE_MS);
  t.is(others.known.length, 300, 'it is one, which is not many');
  t.false(asks(isBusy));
  // Of what policies only say by name the rest means nothing.
  t.false(asks());
  t.deepEqual([...others.hearing.subjects], ['db']);
  t.deepEqual(others.hearing.named, ['db']);
  t.deepEqual(others.known, []);
  t.true(asks(isBusy));
  t.is(others.hearing.named, undefined);
  others.pass(LEASE_MS);
  t.is(others.known.length, WITNESSES);
});

test('when those that are heard become few, others are found; their own words are heard meanwhile', (t) => {
  const others = many(500);
  const first = others.known;
  for (const name of first.slice(0, WITNESSES - FEW)) others.does(name, 0);
  t.false(others.hearing.subjects.has('*'));
  others.does(first[WITNESSES - FEW]!, 0);
  for (const name of ['*', ...first]) t.true(others.hearing.subjects.has(name), name);
  others.pass(LEASE_MS);
  t.false(others.hearing.subjects.has('*'));
  t.is(others.known.length, WITNESSES);
});

test('all rest at once, also those that were not heard: that counts a lease later, and not before', (t) => {
  const others = many(500);
  others.pass(1_000);
  for (const name of others.atWork) others.does(name, 0);
  t.is(others.known.length, 1);
  others.pass(LEASE_MS - 500);
  t.is(others.known.length, 1);
  others.pass(500);
  t.deepEqual(others.known, []);
  t.is(others.hearing.hosts.filter(({ state }) => state === 'silent').length, 0);
  t.deepEqual([...others.hearing.subjects], ['*']);
});

test('the last that is known rests while one that is not heard works: it is believed until that one speaks', (t) => {
  const others = many(500);
  others.pass(1_000);
  const hidden = others.atWork.find((name) => !others.known.includes(name))!;
  for (const name of others.atWork) if (name !== hidden) others.does(name, 0);
  for (let i = 0; i < 2 * LEASE_MS; i += 500) {
    t.true(others.hearing.isActive);
    others.pass(500);
  }
  t.deepEqual(others.known, [hidden]);
  others.does(hidden, 0);
  t.deepEqual(others.known, []);
});

test('a word from before the last one does not count, nor while that one is put off', (t) => {
  const others = many(500);
  const last = others.known.at(-1)!;
  for (const name of others.atWork) if (name !== last) others.does(name, 0);
  const hear = (seq: number, share: number) => others.hearing.hear(last, message(seq, share), others.nowMs);
  t.is(hear(5, 0), undefined);
  t.true(others.hearing.isActive);
  t.is(hear(4, 1), 'old');
  t.is(hear(5, 1), 'old');
  others.nowMs += LEASE_MS;
  others.hearing.look(others.nowMs);
  t.false(others.hearing.isActive);
});

test('two leases without a word, and nobody is believed to work, however many were at work', (t) => {
  for (const count of [1, FEW, MANY, 500]) {
    const others = many(count);
    others.nowMs += 2 * LEASE_MS - 1;
    others.hearing.look(others.nowMs);
    t.true(others.hearing.isActive);
    others.nowMs += 1;
    others.hearing.look(others.nowMs);
    t.false(others.hearing.isActive, `${count}`);
  }
  // Those that rest just before are no exception.
  const others = many(500);
  for (const name of others.known) others.does(name, 0);
  others.nowMs += 2 * LEASE_MS;
  others.hearing.look(others.nowMs);
  t.false(others.hearing.isActive);
});

test('whatever others do, whoever knows a lease of it knows whether somebody works, and hears few', (t) => {
  const step = fc.record({
    ms: fc.constantFrom(0, 0, 0, 500, 2_000, 7_000),
    from: fc.nat(199),
    count: fc.constantFrom(1, 5, 40, 200),
    share: fc.constantFrom(0, 0, 0.001, 1),
  });
  const property = fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
    const others = many(200);
    others.pass(LEASE_MS);
    for (const { ms, from, count, share } of steps) {
      for (let i = 0; i < count; i++) others.does(`h${(from + i) % 200}`, share);
      others.pass(ms);
      // Nobody goes on while somebody works.
      if (others.atWork.length > 0 && others.known.length === 0) throw new Error('nobody is known');
    }
    others.pass(LEASE_MS);
    if (others.known.length > 0 !== others.atWork.length > 0) throw new Error('not as it is');
    if (others.known.length > MANY) throw new Error(`${others.known.length} are heard`);
    const hidden = others.known.filter((name) => !others.atWork.includes(name));
    if (hidden.length > 0) throw new Error(`they rest: ${hidden.join()}`);
  });
  t.notThrows(() => fc.assert(property, { numRuns: 200 }));
});

test('of two kinds of work, whoever asks for a lease whether somebody does either knows both', (t) => {
  const kinds = [isBusy, uses(2)];
  const step = fc.record({
    ms: fc.constantFrom(0, 0, 500, 7_000),
    from: fc.nat(199),
    count: fc.constantFrom(1, 40, 200),
    share: fc.constantFrom(0, 0, 0.1, 3),
    asked: fc.option(fc.constantFrom<number[]>([0], [1], [0, 1])),
  });
  const property = fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
    const others = many(200, { questions: kinds });
    others.pass(LEASE_MS);
    let asked = [0, 1];
    for (const { ms, from, count, share, asked: now } of steps) {
      if (now !== null) {
        asked = now;
        others.hearing.ask(new Set(asked.map((each) => kinds[each]!.name)), others.nowMs);
        others.pass(LEASE_MS);
      }
      for (let i = 0; i < count; i++) others.does(`h${(from + i) % 200}`, share);
      others.pass(ms);
      for (const each of asked) {
        const least = [0.01, 2][each]!;
        const knows = others.knownShares.some((one) => one >= least);
        // Nobody goes on while somebody works that it waits for.
        if (!knows && others.shares.some((one) => one >= least)) throw new Error(`${each}`);
      }
    }
    others.pass(LEASE_MS);
    for (const each of asked) {
      const least = [0.01, 2][each]!;
      const knows = others.knownShares.some((one) => one >= least);
      if (knows && others.shares.every((one) => one < least)) throw new Error('nobody does');
    }
  });
  t.notThrows(() => fc.assert(property, { numRuns: 25 }));
});
