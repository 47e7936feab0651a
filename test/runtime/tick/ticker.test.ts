import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import fc from 'fast-check';
import { Ticker } from '../../../runtime/tick/ticker.ts';
import { Lane } from '../../../runtime/watch/lane.ts';

test('ticks are due at whole intervals from the start, however long they take; those left out are counted', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 0, max: 350 }), { minLength: 1, maxLength: 50 }),
      fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 50, maxLength: 50 }),
      async (takes, late) => {
        let now = 5_000;
        let index = 0;
        const ticker = new Ticker(
          100,
          () => now,
          async (ms) => {
            // Timers fire late, never early.
            now += ms + late[index]!;
          },
        );
        const { signal } = new AbortController();
        let missed = 0;
        for (const [i, ms] of takes.entries()) {
          index = i;
          missed += await ticker.next(signal);
          const number = i + missed;
          // The tick is its own interval's: never early, and late by no more than the timer or the tick before.
          if (now < 5_000 + number * 100 || now >= 5_000 + (number + 1) * 100) return false;
          now += ms;
        }
        return true;
      },
    ),
  );
  t.pass('fast-check found no counterexample');
});

test('another interval holds from the last tick on', async (t) => {
  let now = 0;
  const ticker = new Ticker(
    100,
    () => now,
    async (ms) => {
      now += ms;
    },
  );
  const { signal } = new AbortController();
  await ticker.next(signal);
  ticker.intervalMs = 400;
  await ticker.next(signal);
  t.is(now, 400);
  ticker.intervalMs = 100;
  await ticker.next(signal);
  t.is(now, 500);
});

test('a lane keeps the order and its width', async (t) => {
  const lane = new Lane(2);
  const order: string[] = [];
  let most = 0;
  let running = 0;
  const work = (name: string) => async () => {
    running += 1;
    most = Math.max(most, running);
    order.push(name);
    await new Promise((resolve) => setImmediate(resolve));
    running -= 1;
    if (name === 'b') throw new Error('b');
  };
  const results = await Promise.allSettled(['a', 'b', 'c', 'd'].map((name) => lane.run(work(name))));
  await lane.idle();
  t.deepEqual(order, ['a', 'b', 'c', 'd']);
  t.is(most, 2);
  t.is(results[1]!.status, 'rejected');
  t.false(lane.busy);
});

test('a tick whose time has passed is left out and counted; no delay adds up', async (t) => {
  const stop = new AbortController();
  const begun = performance.now();
  let count = 0;
  let missed = 0;
  for await (const left of new Ticker(20).ticks(stop.signal)) {
    missed += left;
    count++;
    // Where the next tick would be due, counted from the start, is never before now by more than half an interval.
    const due = (performance.now() - begun) / 20;
    t.true(count - 1 + missed <= due + 0.5, `${count} + ${missed} after ${due}`);
    if (count === 3) await sleep(110);
    if (count === 6) stop.abort();
  }
  t.is(count, 6);
  t.true(missed >= 4, `${missed}`);
});

test('a tick that is brought forward comes at once; those after it are counted from there', async (t) => {
  let now = 0;
  let waits: number[] = [];
  let over = () => {};
  const ticker = new Ticker(
    100,
    () => now,
    (ms) => {
      waits.push(ms);
      return new Promise<void>((resolve) => {
        over = resolve;
      });
    },
  );
  const { signal } = new AbortController();
  t.is(await ticker.next(signal), 0);
  const second = ticker.next(signal);
  now = 30;
  ticker.hurry();
  t.is(await second, 0);
  const third = ticker.next(signal);
  t.deepEqual(waits, [100, 100]);
  now = 130;
  over();
  t.is(await third, 0);
  waits = [];
  now = 150;
  const stop = new AbortController();
  const fourth = new Ticker(100).ticks(stop.signal);
  await fourth.next();
  const last = fourth.next();
  stop.abort();
  t.true((await last).done, 'and it ends as soon as ever');
});
