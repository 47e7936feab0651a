import test from 'ava';
import { type Fig8Sample, judgeRun } from './judge.ts';

const INTERVAL_MS = 100;

function sample(process: string, did: Fig8Sample['did'], from: number, to: number): Fig8Sample {
  return { intervalMs: INTERVAL_MS, sentinelMs: 0, process, did, from, to };
}

test('a delay within an interval is none, a longer one is a mistake, and so is a run that begins beside others', (t) => {
  const others = [
    sample('pi4', 'wanted', 100, 300),
    sample('pi2', 'wanted', 500, 900),
    sample('pi3', 'wanted', 1000, 1500),
    sample('pi4', 'ran', 100, 300),
  ];
  const within = judgeRun(INTERVAL_MS, [...others, sample('pi1', 'ran', 0, 180)]);
  t.like(within, { changes: 3, delays: [80], mistakes: 0, early: 0, wrongMs: 80, lowestMs: 100 });
  t.is(within.restMs, 1500 - 200 - 400 - 500);
  const late = judgeRun(INTERVAL_MS, [...others, sample('pi1', 'ran', 0, 201)]);
  t.like(late, { mistakes: 1, early: 0, wrongMs: 101 });
  const soon = judgeRun(INTERVAL_MS, [...others, sample('pi1', 'ran', 550, 560)]);
  t.like(soon, { mistakes: 0, early: 0, delays: [60], wrongMs: 10, lowestMs: 0 });
  const early = judgeRun(INTERVAL_MS, [...others, sample('pi1', 'ran', 601, 611)]);
  t.like(early, { mistakes: 1, early: 1, delays: [111], wrongMs: 10, lowestMs: 0 });
});

test('what was under way at the first look had no beginning that was seen', (t) => {
  const run = [sample('pi4', 'wanted', 0, 400), sample('pi1', 'ran', 0, 390)];
  t.like(judgeRun(INTERVAL_MS, run), { changes: 0, mistakes: 0, early: 0, wrongMs: 390 });
});
