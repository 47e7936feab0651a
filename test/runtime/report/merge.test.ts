/** Traces of several hosts in one picture. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../../kernels/paths.ts';
import { collect } from '../../../runtime/report/collect.ts';
import { merge } from '../../../runtime/report/merge.ts';
import { timelineSvg } from '../../../runtime/report/timeline-svg.ts';
import type { Tick, TickProcess } from '../../../runtime/tick/tick.ts';
import { TraceRecorder } from '../../../runtime/trace/recorder.ts';
import { isoAt, sampleAction, sampleDomain, sampleProcess, sampleTick } from '../sample-ticks.ts';

const program = path.join(projectDirectory, 'dist', 'domsched.js');

/** One process in a domain that is called the same on every host, seen for `count` looks from `fromMs` of the wall clock on. */
function story(comm: string, fromMs: number, count: number, facts: Partial<TickProcess> = {}): Tick[] {
  return Array.from({ length: count }, (_, i) => ({
    ...sampleTick(
      i + 1,
      [sampleDomain('guest', [sampleProcess({ pid: 7, comm, cpuNs: i * 25e7, ...facts })])],
      {
        actions: i === 1 ? [sampleAction({ domain: 'id-guest', pid: 7 })] : [],
        waits: [
          { domain: 'guest', comm, culprit: { kind: 'guest', domain: 'guest' }, place: 'host', ns: 1e6 },
        ],
      },
    ),
    time: isoAt(fromMs + i * 500),
  }));
}

test('histories of two hosts are put side by side by wall time; a domain has its host’s name before its own', async (t) => {
  const held = { policy: 'fleet/backups', reason: 'b/guest: server (7) runs', since: isoAt(2_000) };
  const history = merge([
    { host: 'a', history: await collect(story('backup', 2_000, 5, { held })) },
    { host: 'b', history: await collect(story('server', 0, 3)) },
  ]);
  t.like(history, { hosts: ['a', 'b'], started: isoAt(0), durationMs: 4_000, ticks: 8 });
  t.deepEqual(
    history.domains.map(({ id, name }) => [id, name]),
    [
      ['a/id-guest', 'a/guest'],
      ['b/id-guest', 'b/guest'],
    ],
  );
  const [backup, server] = history.rows;
  t.like(backup, { domain: 'a/id-guest', comm: 'backup', first: 2_000, last: 4_000, ranMs: 1_000 });
  t.like(backup!.held[0], { domain: 'a/id-guest', from: 2_000, to: 4_000, reason: held.reason });
  t.like(server, { domain: 'b/id-guest', comm: 'server', first: 0, last: 1_000, ranMs: 500 });
  t.deepEqual(server!.spans, [{ from: 0, to: 1_000, share: 0.5, wanted: false }]);
  t.deepEqual(
    history.actions.map(({ domain, at }) => [domain, at]),
    [
      ['b/id-guest', 500],
      ['a/id-guest', 2_500],
    ],
  );
  t.deepEqual(
    history.waits.map(({ domain, culprit, waitedMs }) => [domain, culprit.domain, waitedMs]),
    [
      ['a/guest', 'a/guest', 5],
      ['b/guest', 'b/guest', 3],
    ],
  );
  t.regex(timelineSvg(history), /2 hosts, each by its own clock {2}· {2}8 samples {2}·/);
});

test('a trace without a look moves nobody; two of one name stay two', async (t) => {
  const one = await collect(story('x', 1_000, 2));
  const history = merge([
    { host: 'a', history: await collect([]) },
    { host: 'a', history: one },
    { host: 'a', history: one },
  ]);
  t.like(history, { started: isoAt(1_000), durationMs: 500, ticks: 4 });
  t.is(new Set(history.hosts).size, 3);
  t.is(new Set(history.domains.map(({ id }) => id)).size, 2);
  t.like(merge([{ host: 'a', history: await collect([]) }]), { durationMs: 0, domains: [] });
});

test('report draws the traces of several hosts in one picture, each by the name that its host has', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'report-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const record = async (host: string, ticks: readonly Tick[]) => {
    const file = path.join(folder, `${host}.trace`);
    const recorder = await TraceRecorder.create({ file, source: 'daemon', host });
    for (const tick of ticks) recorder.tick(tick);
    await recorder.close();
    return file;
  };
  const [a, b] = [await record('a', story('backup', 0, 3)), await record('b', story('server', 0, 3))];
  // Of an earlier version, which named no host: its file's name has to do.
  const [header, ...lines] = (await readFile(b, 'utf8')).split('\n');
  const { host: named, ...older } = JSON.parse(header!);
  t.is(named, 'b');
  const old = path.join(folder, 'old.trace');
  await writeFile(old, [JSON.stringify(older), ...lines].join('\n'));
  // Of a host that speaks to terminals.
  const mad = path.join(folder, 'mad.trace');
  await writeFile(mad, [JSON.stringify({ ...older, host: 'x\u001b[2J' }), ...lines].join('\n'));
  const drawn = await execa(process.execPath, [program, 'report', a, b, old, mad, '--format', 'svg']);
  t.regex(drawn.stdout, /a\.trace\.svg: 12 samples of a, b, old, x[ -~]*, 4 domains, 4 processes$/);
  const picture = await readFile(`${a}.svg`, 'utf8');
  for (const name of ['a/guest', 'b/guest', 'old/guest', '>backup<', '>server<'])
    t.true(picture.includes(name), name);
  const missing = await execa(process.execPath, [program, 'report', a, `${a}.none`], { reject: false });
  t.is(missing.exitCode, 1);
  t.regex(missing.stderr, /trace-invalid/);
});
