import test from 'ava';
import fc from 'fast-check';
import { alertOf, type RousedBy } from '../../../runtime/policy/alert.ts';
import {
  APART_MS,
  EARLY_GAP_MS,
  EARLY_PART,
  type FirstSighting,
  gapAfter,
  IDLE_PART,
  judge,
} from '../../../runtime/policy/sighting.ts';
import { domainsOf, observed, type Sketch } from './worlds.ts';

/** One look: how long after the one before, whether somebody was on a CPU, and how long a vCPU was awake since, as a part. */
const look = fc.record({
  afterMs: fc.double({ min: 0.1, max: 60, noNaN: true }),
  seen: fc.boolean(),
  awake: fc.double({ min: 0, max: 1, noNaN: true }),
});

function watch(looks: readonly { afterMs: number; seen: boolean; awake: number }[]) {
  let first: FirstSighting | undefined;
  let [nowMs, awakeNs] = [1_000, 0];
  return looks.map(({ afterMs, seen, awake }) => {
    nowMs += afterMs;
    awakeNs += awake * afterMs * 1e6;
    const judged = judge(first, seen ? { tasks: [1], awakeNs: [0, awakeNs] } : undefined, nowMs);
    first = judged.first;
    return { ...judged, nowMs, awakeNs, seen };
  });
}

test('nobody is roused by one sighting, by two that are close, or against the host’s word', (t) => {
  fc.assert(
    fc.property(fc.array(look, { maxLength: 40 }), (looks) => {
      const judged = watch(looks);
      let earliest = 0;
      for (const [i, each] of judged.entries()) {
        if (!each.roused) continue;
        if (!each.seen) return false;
        // Some sighting before, since the last time that somebody was, is the other half of the proof.
        const proof = judged
          .slice(earliest, i)
          .some(
            (one) =>
              one.seen &&
              each.nowMs - one.nowMs >= APART_MS &&
              each.awakeNs - one.awakeNs >= IDLE_PART * (each.nowMs - one.nowMs) * 1e6 - 1,
          );
        if (!proof) return false;
        earliest = i + 1;
      }
      return true;
    }),
  );
  t.pass('fast-check found no counterexample');
});

test('who goes on to run is found by the second look that is far enough from the first', (t) => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.1, max: 40, noNaN: true }), { minLength: 2 }), (gaps) => {
      const judged = watch(gaps.map((afterMs) => ({ afterMs, seen: true, awake: 1 })));
      const from = judged[0]!.nowMs;
      const due = judged.find(({ nowMs }) => nowMs - from >= APART_MS);
      return judged.find(({ roused }) => roused)?.nowMs === due?.nowMs;
    }),
  );
  t.pass('fast-check found no counterexample');
});

test('a sighting that nothing followed is forgotten, and without an account of the host the guest’s word stands', (t) => {
  const seen = { tasks: [1], awakeNs: undefined };
  const { first } = judge(undefined, seen, 0);
  t.true(judge(first, seen, 5).roused);
  const later = judge(first, undefined, 5);
  t.is(later.first, first);
  t.is(judge(later.first, undefined, 51).first, undefined);
  t.false(judge(later.first, seen, 51).roused);
});

test('ticks that are brought forward are few, and take a small part of the time however long each takes', (t) => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0, max: 500, noNaN: true }), { minLength: 1 }), (took) => {
      const spentMs = took.reduce((sum, ms) => sum + ms, 0);
      const totalMs = took.reduce((sum, ms) => sum + ms + gapAfter(ms), 0);
      return spentMs <= EARLY_PART * totalMs && took.length * EARLY_GAP_MS <= totalMs;
    }),
  );
  t.pass('fast-check found no counterexample');
});

const backup: Sketch = { comm: 'backup', state: 'running', ranNs: 4e8 };
const server: Sketch = { comm: 'server' };

function alert(batch: Sketch, rousedBy: RousedBy | undefined, held: readonly string[] = []) {
  const domains = domainsOf({
    batch: [batch, { comm: 'cron' }],
    web: [server, { comm: 'kswapd', kernelThread: true }],
  });
  const found = alertOf(
    observed(domains),
    [{ rousedBy, subjects: new Set(['batch/backup']) }],
    new Set(held),
  );
  const views = domains.flatMap(({ processes }) => processes);
  return found && { ...found, counting: views.filter(found.counts).map(({ key }) => key) };
}

test('nothing is watched unless somebody runs that could be held', (t) => {
  const others: RousedBy = { among: 'others' };
  t.is(alert({ ...backup, state: 'sleeping', ranNs: 0 }, others), undefined);
  t.is(alert(backup, others, ['batch/backup']), undefined);
  t.is(alert(backup, undefined), undefined);
  t.is(alert({ ...backup, state: 'stopped' }, others), undefined);
  for (const state of ['running', 'ready', 'held'] as const)
    t.deepEqual([...alert({ ...backup, state, ranNs: 0 }, others)!.loose], ['batch/backup']);
  t.deepEqual([...alert({ ...backup, state: 'sleeping' }, others)!.loose], ['batch/backup']);
});

test('others count, or the subjects, but no kernel thread and nobody who was at work already', (t) => {
  t.deepEqual(alert(backup, { among: 'others' })!.counting, ['batch/cron', 'web/server']);
  const but: RousedBy = { among: 'others', select: ({ comm }) => comm !== 'cron' };
  t.deepEqual(alert(backup, but)!.counting, ['web/server']);
  t.is(alert(backup, { among: 'others' })!.domains, undefined);
  const ranked = alert({ ...backup, ranNs: 0 }, { among: 'subjects' })!;
  t.deepEqual(ranked.counting, ['batch/backup']);
  t.deepEqual([...ranked.domains!], ['batch']);
  t.deepEqual(alert(backup, { among: 'subjects' })!.counting, []);
});
