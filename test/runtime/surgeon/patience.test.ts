import test from 'ava';
import { Patience } from '../../../runtime/surgeon/patience.ts';

/** Looks every so many ms until patience ends. @returns how long that took, in ms, and how many looks */
function lasts(limitMs: number, everyMs: number, count: (look: number) => number, idle = false) {
  let now = 1_000;
  const patience = new Patience(limitMs, () => now);
  for (let looks = 1; ; looks++) {
    now += everyMs;
    patience.look({ count: count(looks), idle });
    if (patience.over) return { ms: now - 1_000, looks };
  }
}

const getsFurther = (look: number) => look;
const standsStill = () => 7;

test('where the guest gets further between looks, its limit is that of our own clock', (t) => {
  t.is(lasts(1_000, 20, getsFurther).ms, 1_000);
  t.is(lasts(1_000, 40, getsFurther).ms, 1_000);
});

test('on a host where a look takes long there are as many as elsewhere', (t) => {
  const { looks } = lasts(1_000, 40, getsFurther);
  t.is(lasts(1_000, 100, getsFurther).looks, looks);
  t.is(lasts(1_000, 100, getsFurther).ms, 2_500);
});

test('a guest that got nowhere was not tried; one that idles was', (t) => {
  const everySecond = (look: number) => look >> 1;
  t.is(lasts(1_000, 20, everySecond).looks, 98, 'the first one and 49 of the others');
  t.is(lasts(1_000, 20, standsStill, true).ms, 1_000);
});

test('it ends at four times the limit, whatever the guest does', (t) => {
  t.is(lasts(1_000, 20, standsStill).ms, 4_000);
  t.is(lasts(1_000, 500, getsFurther).ms, 4_000);
});

test('without a limit there is one look', (t) => {
  t.is(lasts(0, 20, getsFurther).looks, 1);
});
