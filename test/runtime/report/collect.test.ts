import test from 'ava';
import fc from 'fast-check';
import { collect } from '../../../runtime/report/collect.ts';
import { columnsOf, lengthOf, momentOf, timeLabel, timeMarks } from '../../../runtime/report/scale.ts';
import { select } from '../../../runtime/report/select.ts';
import { backupStory, isoAt, sampleDomain, sampleProcess, sampleTick } from '../sample-ticks.ts';

const held = (since: number) => ({ policy: 'idle-only', reason: 'httpd runs', since: isoAt(since) });

test('CPU time between two looks becomes a share; sleep is no span', async (t) => {
  const at = (tick: number, cpuNs: number) =>
    sampleTick(tick, [sampleDomain('web', [sampleProcess({ pid: 5, cpuNs })])]);
  const { rows, durationMs } = await collect([at(1, 7e9), at(2, 7.25e9), at(3, 7.25e9), at(4, 7.75e9)]);
  t.is(durationMs, 1500);
  t.is(rows.length, 1);
  t.is(rows[0]!.ranMs, 750);
  t.deepEqual(rows[0]!.spans, [
    { from: 0, to: 500, share: 0.5, wanted: false },
    { from: 1000, to: 1500, share: 1, wanted: false },
  ]);
});

test('no process gets more than all CPUs, whatever its counters say', async (t) => {
  const at = (tick: number, cpuNs: number) =>
    sampleTick(tick, [sampleDomain('web', [sampleProcess({ pid: 5, cpuNs })], { vcpus: 2 })]);
  const { rows } = await collect([at(1, 1e9), at(2, 9e18), at(3, 0)]);
  t.is(rows[0]!.ranMs, 1000);
});

test('a hold lasts from when it was made to the last look at it', async (t) => {
  const at = (tick: number, since?: number) =>
    sampleTick(tick, [
      sampleDomain('web', [
        sampleProcess({ pid: 5, ...(since !== undefined && { state: 'held', held: held(since) }) }),
      ]),
    ]);
  const { rows } = await collect([at(1), at(2, 120), at(3, 120), at(4), at(5, 1990)]);
  t.deepEqual(
    rows[0]!.held.map(({ from, to, lasts }) => ({ from, to, lasts })),
    [
      { from: 120, to: 1000, lasts: false },
      { from: 1990, to: 2000, lasts: true },
    ],
  );
  t.is(rows[0]!.heldMs, 890);
  t.is(rows[0]!.held[0]!.policy, 'idle-only');
});

test('a hold from before the trace, a wrong clock, a process that ends while held', async (t) => {
  const at = (tick: number, ...pids: number[]) =>
    sampleTick(tick, [
      sampleDomain(
        'web',
        pids.map((pid) =>
          sampleProcess({
            pid,
            state: 'held',
            held: { ...held(-5000), ...(pid === 7 && { since: 'never' }) },
          }),
        ),
      ),
    ]);
  const { rows } = await collect([at(1, 5, 6, 7), at(2, 5, 7), at(3, 5, 7)]);
  t.deepEqual(
    rows.map(({ pid, held: [period] }) => [pid, period!.from, period!.to, period!.lasts]),
    [
      [5, 0, 1000, true],
      [6, 0, 0, false],
      [7, 0, 1000, true],
    ],
  );
});

test('a domain that cannot be read for a while has a gap, and its time is not lost', async (t) => {
  const at = (tick: number, cpuNs: number) =>
    sampleTick(tick, [sampleDomain('web', [sampleProcess({ pid: 5, cpuNs })])]);
  const failed = sampleTick(2, [sampleDomain('web', [], { error: { code: 'timeout', message: 'slow' } })]);
  const { rows, domains } = await collect([at(1, 0), failed, at(3, 5e8)]);
  t.deepEqual(rows[0]!.spans, [{ from: 0, to: 1000, share: 0.5, wanted: false }]);
  t.like(domains[0], { failures: 1, error: { code: 'timeout' }, isReadable: true });
  t.like((await collect([at(1, 0), failed])).domains[0], { failures: 1, isReadable: false });
});

test('columns keep all CPU time', (t) => {
  const span = fc.tuple(fc.nat(1000), fc.nat(1000), fc.double({ min: 0, max: 4, noNaN: true }), fc.boolean());
  fc.assert(
    fc.property(fc.array(span), fc.integer({ min: 1, max: 400 }), (list, count) => {
      const spans = list.map(([a, b, share, wanted]) => ({
        from: Math.min(a, b),
        to: Math.max(a, b),
        share,
        wanted,
      }));
      const columns = columnsOf(spans, 1000, count);
      const total = columns.reduce((sum, { ran }) => sum + (ran * 1000) / count, 0);
      const expected = spans.reduce((sum, { from, to, share }) => sum + (to - from) * share, 0);
      t.true(Math.abs(total - expected) <= 1e-6 * Math.max(1, expected));
    }),
  );
});

test('marks are few, ascending and cover the time', (t) => {
  fc.assert(
    fc.property(fc.double({ min: 0.001, max: 1e11, noNaN: true }), (duration) => {
      const marks = timeMarks(duration, 11);
      t.true(marks.length >= 1 && marks.length <= 11);
      t.is(marks[0], 0);
      t.true(marks.at(-1)! <= duration);
    }),
  );
});

test('times for people', (t) => {
  t.is(timeLabel(5000, 60_000), '5 s');
  t.is(timeLabel(90_000, 600_000), '1:30');
  t.is(timeLabel(3_700_000, 7_200_000), '1:01:40');
  t.is(momentOf(5980), '0:05.9');
  t.is(momentOf(3_700_200), '1:01:40.2');
  t.is(lengthOf(0.3), '300 µs');
  t.is(lengthOf(2.57), '2.6 ms');
  t.is(lengthOf(26_940), '26.9 s');
});

test('rows: who was held or edited comes first, then who ran most', async (t) => {
  const history = await collect(backupStory(60));
  const pids = (most: number) => select(history, most).flatMap(({ rows }) => rows.map(({ pid }) => pid));
  t.deepEqual(
    pids(3).toSorted((a, b) => a - b),
    [200, 201, 300],
  );
  t.deepEqual(
    pids(100).toSorted((a, b) => a - b),
    [100, 101, 200, 201, 300],
  );
  const batch = select(history, 3).find(({ domain }) => domain.name === 'batch')!;
  t.is(batch.others.count, 1);
});
