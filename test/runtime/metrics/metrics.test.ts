import test from 'ava';
import fc from 'fast-check';
import { Metrics } from '../../../runtime/metrics/metrics.ts';
import type { TickWait } from '../../../runtime/tick/tick.ts';
import { backupStory, sampleAction, sampleDomain, sampleProcess, sampleTick } from '../sample-ticks.ts';
import { anyTicks, hostileText } from '../trace/arbitrary.ts';

/** Samples by name and labels, read as Prometheus reads them. */
function parse(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const match = /^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? (\S+)$/.exec(line);
    if (match === null) throw new Error(`no sample: ${line}`);
    samples.set(`${match[1]}${match[2] ?? ''}`, Number(match[3]));
  }
  return samples;
}

async function after(ticks: Parameters<Metrics['tick']>[0][], processes = 50): Promise<Map<string, number>> {
  const metrics = new Metrics({ withoutOwn: true, processes });
  for (const tick of ticks) metrics.tick(tick);
  return parse(await metrics.text());
}

test('edits by what they were and how they went, refusals by reason, pauses', async (t) => {
  const actions = [
    sampleAction({ action: 'hold', techniques: ['splice', 'state'], pausedUs: 2000 }),
    sampleAction({ action: 'hold', techniques: ['park'], pausedUs: 3000 }),
    sampleAction({ action: 'hold', techniques: [], outcome: 'refused', code: 'lock-held', pausedUs: 0 }),
    sampleAction({ action: 'release', outcome: 'failed', code: 'timeout' }),
  ];
  const samples = await after([sampleTick(1, [], { actions, missed: 0 }), sampleTick(2, [], { missed: 3 })]);
  const of = (name: string) => samples.get(`domsched_${name}`);
  t.is(of('ticks_total'), 2);
  t.is(of('missed_ticks_total'), 3);
  t.is(of('edits_total{action="hold",technique="splice+state",outcome="done"}'), 1);
  t.is(of('edits_total{action="hold",technique="park",outcome="done"}'), 1);
  t.is(of('edits_total{action="hold",technique="none",outcome="refused"}'), 1);
  t.is(of('refusals_total{reason="lock-held"}'), 1);
  t.is(of('refusals_total{reason="timeout"}'), 1);
  t.is(of('pause_seconds_count{action="hold"}'), 2);
  t.is(of('pause_seconds_sum{action="hold"}'), 0.005);
  t.is(of('tick_duration_seconds_count'), 2);
});

test('domains: readable, unreadable and why, what is held, shares of CPU time', async (t) => {
  const error = (code: string) => ({ error: { code, message: '' } });
  const web = sampleDomain('web', [
    sampleProcess({ pid: 1, ranNs: 2.5e8, comm: 'httpd' }),
    sampleProcess({ pid: 2, ranNs: 5e8, comm: 'php' }),
    sampleProcess({ pid: 3, state: 'held', held: { policy: 'p', reason: 'r', since: '' } }),
  ]);
  const unknown = [sampleDomain('x', [], error('layout-unknown')), sampleDomain('y', [], error('timeout'))];
  const liar = sampleDomain('liar', [], { overstated: true });
  const samples = await after([sampleTick(1, [web, ...unknown]), sampleTick(2, [web, liar, ...unknown])], 1);
  const of = (name: string) => samples.get(`domsched_${name}`);
  t.is(of('domain_claims_too_much{domain="web"}'), 0);
  t.is(of('domain_claims_too_much{domain="liar"}'), 1);
  t.is(of('domains{readable="yes"}'), 2);
  t.is(of('domains{readable="no"}'), 2);
  t.is(of('layouts_unknown'), 1);
  t.is(of('domain_errors{reason="timeout"}'), 1);
  t.is(of('held_processes{domain="web"}'), 1);
  t.is(of('processes{domain="web"}'), 3);
  t.is(of('domain_cpu_share{domain="web"}'), 1.5);
  t.is(of('process_cpu_share{domain="web",pid="2",comm="php"}'), 1);
  t.is([...samples.keys()].filter((name) => name.startsWith('domsched_process_cpu_share')).length, 1);
});

test('what ended is told no longer', async (t) => {
  const ticks = [...backupStory(20), sampleTick(21, [])];
  const samples = await after(ticks);
  t.deepEqual(
    [...samples.keys()].filter((name) => name.includes('domain="')),
    [],
  );
  t.is(samples.get('domsched_domains{readable="yes"}'), 0);
});

test('no guest can make the text unreadable or the number of series grow', async (t) => {
  await fc.assert(
    fc.asyncProperty(anyTicks(hostileText), async (ticks) => {
      const samples = await after(ticks, 3);
      const shares = [...samples.keys()].filter((name) => name.startsWith('domsched_process_cpu_share'));
      t.true(shares.length <= 3);
      for (const [name, value] of samples) t.true(value >= 0, `${name} ${value}`);
    }),
    { numRuns: 60 },
  );
});

test('the largest numbers, again and again, leave every sample finite', async (t) => {
  const most = Number.MAX_VALUE;
  const domain = sampleDomain('db', [
    sampleProcess({ pid: 1, ranNs: most }),
    sampleProcess({ pid: 2, ranNs: most }),
  ]);
  const tick = {
    missed: most,
    tookMs: most,
    elapsedMs: Number.MIN_VALUE,
    sentinel: { looks: most, ms: most },
  };
  const samples = await after([1, 2, 3].map((at) => ({ ...sampleTick(at, [domain]), ...tick })));
  t.deepEqual(
    [...samples].filter(([, value]) => !Number.isFinite(value)),
    [],
  );
});

test('of many domains the first thousand have series, the others one', async (t) => {
  const many = Array.from({ length: 1500 }, (_, i) => sampleDomain(`vm${i}`, [sampleProcess({ pid: 1 })]));
  const samples = await after([sampleTick(1, many)]);
  const series = [...samples].filter(([name]) => name.startsWith('domsched_processes{'));
  t.is(series.length, 1001);
  t.is(samples.get('domsched_processes{domain="(others)"}'), 500);
});

const wait = (victim: string, culprit: string, ns: number): TickWait => ({
  domain: 'db',
  comm: victim,
  culprit: { kind: 'process', domain: 'web', comm: culprit },
  place: 'host',
  ns,
});

test('waits by victim and culprit, whatever the culprit is, in both places together', async (t) => {
  const waits: TickWait[] = [
    wait('postgres', 'gzip', 1e9),
    { ...wait('postgres', 'gzip', 5e8), place: 'guest' },
    { ...wait('postgres', '', 1e9), culprit: { kind: 'host', comm: 'make' } },
    { ...wait('postgres', '', 2e9), culprit: { kind: 'guest', domain: 'web' } },
    { ...wait('postgres', '', 3e9), culprit: { kind: 'machine', domain: 'web' } },
    { ...wait('postgres', '', 4e9), culprit: { kind: 'cap', domain: 'db' } },
    { ...wait('postgres', '', 5e9), culprit: { kind: 'unknown' } },
  ];
  const samples = await after([
    sampleTick(1, [], { waits }),
    sampleTick(2, []),
    sampleTick(3, [], { waits }),
  ]);
  const found = [...samples].filter(([name]) => name.startsWith('domsched_wait_seconds_total'));
  t.deepEqual(Object.fromEntries(found.map(([name, value]) => [/culprit="([^"]*)"/.exec(name)![1], value])), {
    'web/gzip': 3,
    'host/make': 2,
    'web (kernel)': 4,
    'web (machine)': 6,
    'db (cap)': 8,
    '(unknown)': 10,
  });
  t.true(found.every(([name]) => name.includes('victim="db/postgres"')));
  t.false((await after([sampleTick(1, [], { waits })], 0)).has('domsched_wait_seconds_total'));
});

test('series of waits: no more than allowed whatever guests call their processes; the largest first, none is lost', async (t) => {
  const metrics = new Metrics({ withoutOwn: true, processes: 3 });
  const told = async () => {
    const found = [...parse(await metrics.text())].filter(([name]) => name.startsWith('domsched_wait'));
    return Object.fromEntries(found.map(([name, value]) => [/victim="([^"]*)"/.exec(name)![1]!, value]));
  };
  const names = Array.from({ length: 50 }, (_, i) => wait(`forged-${i}`, 'x', 1e6));
  metrics.tick(sampleTick(1, [], { waits: [...names, wait('postgres', 'gzip', 3e9)], ms: 0 }));
  const first = await told();
  t.is(Object.keys(first).length, 4);
  t.is(first['db/postgres'], 3);
  t.true(Math.abs(Object.values(first).reduce((a, b) => a + b, 0) - 3.05) < 1e-9);
  // One that has not grown for ten minutes makes room.
  metrics.tick(
    sampleTick(2, [], { waits: [wait('postgres', 'gzip', 1e9), wait('late', 'y', 1e9)], ms: 599_000 }),
  );
  t.is((await told())['db/late'], undefined);
  metrics.tick(sampleTick(3, [], { waits: [wait('late', 'y', 1e9)], ms: 601_000 }));
  const last = await told();
  t.is(Object.keys(last).length, 4);
  t.is(last['db/late'], 1);
  t.is(last['db/postgres'], 4);
});
