import test from 'ava';
import fc from 'fast-check';
import {
  afterPause,
  BURST_MS,
  LONGEST_PAUSE_MS,
  NEVER_STOOD,
  PAUSED_PART,
  runsFirstMs,
  type Stood,
} from '../../../runtime/broker/pause-budget.ts';

const HOUR_MS = 3_600_000;
/** And what the arithmetic leaves. */
const MOST_BEYOND_MS = BURST_MS + LONGEST_PAUSE_MS + 1e-6;

test('the longest pauses, as soon as they may be: in no time does it stand for more than its part and the burst', (t) => {
  const pauses: (readonly [from: number, to: number])[] = [];
  let stood: Stood = NEVER_STOOD;
  for (let now = 0; now < HOUR_MS; ) {
    now += runsFirstMs(stood, now);
    pauses.push([now, now + LONGEST_PAUSE_MS]);
    stood = afterPause(stood, now, now + LONGEST_PAUSE_MS);
    now += LONGEST_PAUSE_MS;
  }
  t.true(worst(pauses) <= MOST_BEYOND_MS, `${worst(pauses)}`);
  const all = pauses.reduce((sum, [from, to]) => sum + to - from, 0);
  t.true(all > 0.99 * HOUR_MS * PAUSED_PART, 'it may stand for its part');
});

test('any pauses, as soon as they may be: the same', (t) => {
  const wish = fc.record({ gap: fc.nat(2_000), lasts: fc.nat(LONGEST_PAUSE_MS) });
  t.notThrows(() => {
    fc.assert(
      fc.property(fc.array(wish, { minLength: 1, maxLength: 100 }), (wishes) => {
        const pauses: (readonly [from: number, to: number])[] = [];
        let stood: Stood = NEVER_STOOD;
        let now = 0;
        for (const { gap, lasts } of wishes) {
          now += gap;
          now += runsFirstMs(stood, now);
          pauses.push([now, now + lasts]);
          stood = afterPause(stood, now, now + lasts);
          now += lasts;
        }
        return worst(pauses) <= MOST_BEYOND_MS;
      }),
    );
  });
});

test('who pauses for a quarter of the time, in pauses of a second, never waits', (t) => {
  let stood: Stood = NEVER_STOOD;
  for (let now = 0; now < HOUR_MS; now += 1_000 / PAUSED_PART) {
    t.is(runsFirstMs(stood, now), 0);
    stood = afterPause(stood, now, now + 1_000);
  }
});

test('a clock that stands still or an empty pause makes nothing', (t) => {
  t.is(runsFirstMs(afterPause(NEVER_STOOD, 5, 5), 5), 0);
  t.is(runsFirstMs(afterPause(NEVER_STOOD, 5, 4), 4), 0);
});

/** What it stood beyond its part, at the worst: from the beginning of each pause to the end of each later one. */
function worst(pauses: readonly (readonly [from: number, to: number])[]): number {
  let most = 0;
  for (const [i, [from]] of pauses.entries()) {
    let stands = 0;
    for (const [begin, end] of pauses.slice(i, i + 200)) {
      stands += end - begin;
      most = Math.max(most, stands - (end - from) * PAUSED_PART);
    }
  }
  return most;
}
