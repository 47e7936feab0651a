import test from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { addressPointer } from '../../../runtime/guest/pointer.ts';
import type { Alert } from '../../../runtime/policy/alert.ts';
import type { ProcessView } from '../../../runtime/policy/world.ts';
import { Sentinel, type Watchable } from '../../../runtime/watch/sentinel.ts';
import { knownKernel, SYNTHETIC_KERNELS, SyntheticGuest } from '../guest/synthetic.ts';
import { processOf } from '../policy/worlds.ts';

const PERIOD_MS = 5;
const ANY: Alert = {
  loose: new Set(['backup']),
  domains: undefined,
  counts: ({ comm }) => comm !== 'backup',
};

/** A domain that says who is on its CPUs when a test asks the function for it. */
function domainOf(id: string, tasks: () => readonly number[] | undefined, awakeMs?: () => number) {
  const read = awakeMs && (() => [{ ranNs: awakeMs() * 1e6, waitedNs: 0 }]);
  const views: Record<number, ProcessView> = {
    1: processOf(id, { comm: 'backup', pid: 1 }),
    2: processOf(id, { comm: 'server', pid: 2 }),
  };
  return {
    id,
    guest: {
      queueWords: () => ({ read: () => {}, tasks }),
      pidOf: (task: number) => (task in views ? task : undefined),
      domain: { hostClock: read && { read, close: () => {} } },
    },
    tracker: { viewOf: (pid: number) => views[pid] },
  } as unknown as Watchable & { guest: NonNullable<Watchable['guest']> };
}

/** Time, and a sentinel whose every look takes `lookMs`. */
class Watch {
  nowMs = 1_000;
  hurried: number[] = [];
  looks = 0;
  lookMs = 0.05;
  #spentMs = 0;
  #due: { atMs: number; call: () => void } | undefined;
  readonly sentinel = new Sentinel({
    hurry: () => this.hurried.push(this.nowMs),
    now: () => this.nowMs,
    // Asked when a look begins, and when it ends.
    ownTime: () => (this.#spentMs += this.lookMs / 2),
    later: (ms, call) => {
      // As Node's timers, which leave out fractions of a millisecond.
      const due = { atMs: this.nowMs + Math.max(1, Math.trunc(ms)), call };
      this.#due = due;
      return () => {
        if (this.#due === due) this.#due = undefined;
      };
    },
  });

  /** Lets the sentinel look for so long, or until it brings the tick forward. */
  run(ms: number): void {
    const endMs = this.nowMs + ms;
    const before = this.hurried.length;
    while (this.#due !== undefined && this.#due.atMs <= endMs && this.hurried.length === before) {
      const { atMs, call } = this.#due;
      this.#due = undefined;
      this.nowMs = Math.max(this.nowMs, atMs);
      this.looks += 1;
      call();
    }
    if (this.hurried.length === before) this.nowMs = endMs;
  }

  get isLooking(): boolean {
    return this.#due !== undefined;
  }
}

test('who begins to run is found within two looks; who is known not to count is not', (t) => {
  const watch = new Watch();
  let tasks: readonly number[] = [1];
  watch.sentinel.start(
    [
      domainOf('batch', () => [1]),
      domainOf(
        'web',
        () => tasks,
        () => watch.nowMs,
      ),
    ],
    ANY,
    PERIOD_MS,
  );
  watch.run(400);
  t.deepEqual(watch.hurried, []);
  t.true(watch.looks > 70);
  const from = watch.nowMs;
  tasks = [2];
  watch.run(100);
  t.true(watch.hurried[0]! <= from + PERIOD_MS + 2, `${watch.hurried} from ${from}`);
  const { roused, work } = watch.sentinel.stop();
  t.deepEqual([...roused], [['web', [2]]]);
  t.is(work.looks, watch.looks);
  t.true(Math.abs(work.ms - watch.looks * (watch.lookMs / 2)) < 1e-6);
  t.false(watch.isLooking);
});

test('a task that the last look did not list counts, since it may be anybody’s', (t) => {
  const watch = new Watch();
  watch.sentinel.start([domainOf('web', () => [77])], ANY, PERIOD_MS);
  watch.run(100);
  t.deepEqual([...watch.sentinel.stop().roused], [['web', [77]]]);
});

test('only domains of those who count are looked at, and without any nothing is', (t) => {
  const watch = new Watch();
  const domains = [domainOf('web', () => [2])];
  watch.sentinel.start(domains, { ...ANY, domains: new Set(['db']) }, PERIOD_MS);
  t.false(watch.isLooking);
  watch.sentinel.start([{ ...domains[0]!, guest: undefined }], ANY, PERIOD_MS);
  t.false(watch.isLooking);
});

test('a guest whose memory toggles while its vCPUs idle brings nothing forward', (t) => {
  const watch = new Watch();
  let look = 0;
  watch.sentinel.start(
    [
      domainOf(
        'liar',
        () => (++look % 3 === 0 ? [] : [2]),
        () => 0.01 * watch.nowMs,
      ),
    ],
    ANY,
    PERIOD_MS,
  );
  watch.run(10_000);
  t.deepEqual(watch.hurried, []);
  t.true(watch.looks > 1_000);
});

/** A daemon's ticks over a domain that is roused whenever that is looked for. */
function ticks(watch: Watch, domains: Watchable[], helped: boolean, tookMs: number, untilMs: number): void {
  while (watch.nowMs < untilMs) {
    watch.sentinel.start(domains, ANY, PERIOD_MS);
    watch.run(500);
    const { roused } = watch.sentinel.stop();
    watch.nowMs += tookMs;
    watch.sentinel.learn(roused, tookMs, helped);
  }
}

test('a guest that works and rests in turn cannot make the daemon spin', (t) => {
  for (const tookMs of [1, 50]) {
    const watch = new Watch();
    ticks(
      watch,
      [
        domainOf(
          'web',
          () => [2],
          () => watch.nowMs,
        ),
      ],
      true,
      tookMs,
      61_000,
    );
    t.true(watch.hurried.length * Math.max(50, 10 * tookMs) <= 60_000, `${watch.hurried.length}`);
    t.true(watch.hurried.length > 60);
  }
});

test('a guest for which ticks were brought forward in vain is left out for longer and longer; others are not', (t) => {
  const watch = new Watch();
  const vain = domainOf(
    'vain',
    () => [2],
    () => watch.nowMs,
  );
  ticks(watch, [vain], false, 1, 61_000);
  t.true(watch.hurried.length >= 3 && watch.hurried.length <= 7, `${watch.hurried.length}`);
  watch.hurried = [];
  watch.sentinel.start(
    [
      vain,
      domainOf(
        'web',
        () => [2],
        () => watch.nowMs,
      ),
    ],
    ANY,
    PERIOD_MS,
  );
  watch.run(500);
  t.deepEqual([...watch.sentinel.stop().roused.keys()], ['web']);
});

test('looks that are slow are fewer: they take a small part of a CPU', (t) => {
  const watch = new Watch();
  watch.lookMs = 8;
  watch.sentinel.start([domainOf('web', () => [1])], ANY, PERIOD_MS);
  watch.run(60_000);
  t.true(watch.looks > 100);
  t.true(watch.sentinel.stop().work.ms <= 0.03 * 60_000 + watch.lookMs);
});

test('a domain that cannot be read or has gone between two looks is left to the next tick', (t) => {
  for (const fails of [
    () => undefined,
    () => {
      throw new DomschedError('domain-gone', 'web has ended', {});
    },
  ]) {
    const watch = new Watch();
    let reads = 0;
    const gone = domainOf('web', () => (++reads < 3 ? [1] : fails()));
    watch.sentinel.start([gone, domainOf('db', () => [1])], ANY, PERIOD_MS);
    watch.run(500);
    t.is(reads, 3);
    t.true(watch.isLooking);
    t.deepEqual(watch.hurried, []);
  }
  const watch = new Watch();
  const clockless = domainOf('web', () => [2]);
  const unread = {
    ...clockless,
    guest: {
      ...clockless.guest,
      queueWords: () => {
        throw new DomschedError('translation-fault', 'no page', {});
      },
    },
  } as unknown as Watchable;
  watch.sentinel.start([unread], ANY, PERIOD_MS);
  t.false(watch.isLooking);
});

for (const kernel of SYNTHETIC_KERNELS) {
  test(`${kernel}: the words of the run queues tell who is on a CPU, as a whole look does`, async (t) => {
    const made = await SyntheticGuest.make({
      kernel,
      tasks: [
        { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' },
        { pid: 7, comm: 'busy', cpu: 1, state: 'running', ppid: 1 },
      ],
    });
    const guest = await Guest.attach(made.domain, [knownKernel(kernel)]);
    guest.snapshot();
    const words = guest.queueWords();
    words.read();
    const task = addressPointer(made.tasks.get(7)! as never) as number;
    t.deepEqual(words.tasks(), [task]);
    t.is(guest.pidOf(task), 7);
    t.is(guest.pidOf(task + 64), undefined);
    made.put(made.queues[1]!, 'rq', 'curr', 0n);
    words.read();
    t.is(words.tasks(), undefined, 'no pointer is no task');
    made.domain.destroy();
    t.throws(() => words.read(), { code: 'domain-gone' });
    guest.detach();
  });
}
