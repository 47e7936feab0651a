import test from 'ava';
import { bridged, changesOf, overlap, Stretches, total, union } from './spans.ts';

test('looks become stretches; each stands for the time since the one before', (t) => {
  const stretches = new Stretches();
  for (const [i, goesOn] of [true, true, false, true, false, false].entries())
    stretches.look(goesOn, i, i + 1);
  t.deepEqual(stretches.list, [
    { from: 0, to: 2 },
    { from: 3, to: 4 },
  ]);
  t.is(total(stretches.list), 3);
});

test('stretches that touch are one; an overlap is what both have', (t) => {
  const some = [
    { from: 5, to: 6 },
    { from: 0, to: 2 },
    { from: 2, to: 3 },
  ];
  t.deepEqual(union(some), [
    { from: 0, to: 3 },
    { from: 5, to: 6 },
  ]);
  t.deepEqual(overlap(union(some), [{ from: 2, to: 5.5 }]), [
    { from: 2, to: 3 },
    { from: 5, to: 5.5 },
  ]);
  t.deepEqual(overlap(some, []), []);
});

test('a gap is part of a run up to its length, and the end of the run stays where it is', (t) => {
  const stretches = [
    { from: 0, to: 10 },
    { from: 14, to: 15 },
    { from: 20, to: 21 },
  ];
  t.deepEqual(bridged(stretches, 4), [
    { from: 0, to: 15 },
    { from: 20, to: 21 },
  ]);
  t.deepEqual(bridged(stretches, 0), stretches);
});

test('a change lasts until the lowest ran for the last time while others wanted a CPU', (t) => {
  const lowest = [
    { from: 0, to: 12 },
    { from: 15, to: 16 },
    { from: 40, to: 50 },
  ];
  const others = [
    { from: 10, to: 18 },
    { from: 17, to: 30 },
    { from: 50, to: 60 },
    { from: 70, to: 80 },
  ];
  t.deepEqual(changesOf(lowest, others), [
    // It was let run once more in between: late by six, having run for three.
    { atMs: 10, delayMs: 6, ranMs: 3 },
    // It made way at once.
    { atMs: 50, delayMs: 0, ranMs: 0 },
    { atMs: 70, delayMs: 0, ranMs: 0 },
  ]);
});
