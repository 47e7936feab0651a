/** The alert rules, the board and the metrics themselves, by Debian's Prometheus. */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { Metrics } from '../../runtime/metrics/metrics.ts';
import { parseListen } from '../../runtime/web/local.ts';
import { WebServer } from '../../runtime/web/server.ts';
import { until } from '../live/until.ts';
import { freePort } from '../runtime/free-port.ts';
import { sampleDomain, sampleProcess, sampleTick } from '../runtime/sample-ticks.ts';

const folder = path.join(projectDirectory, 'examples/monitoring');
const board = path.join(folder, 'board.json');
const tick = sampleTick(1, [sampleDomain('web', [sampleProcess({ pid: 1, ranNs: 1e9, comm: 'gzip' })])], {
  waits: [
    {
      domain: 'db',
      comm: 'postgres',
      culprit: { kind: 'process', domain: 'web', comm: 'gzip' },
      place: 'host',
      ns: 2e9,
    },
  ],
});

test('the alert rules are right, and fire when they should', async (t) => {
  for (const args of [
    ['check', 'rules', 'alerts.yml'],
    ['test', 'rules', 'alerts.test.yml'],
  ]) {
    const { exitCode, all } = await execa('promtool', args, { cwd: folder, reject: false, all: true });
    t.is(exitCode, 0, all);
  }
});

test('promtool finds nothing to say about the metrics', async (t) => {
  const metrics = new Metrics({ withoutOwn: true });
  metrics.tick(tick);
  const { exitCode, all } = await execa('promtool', ['check', 'metrics'], {
    input: await metrics.text(),
    reject: false,
    all: true,
  });
  t.is(exitCode, 0, all);
  t.is(all, '');
});

test('Prometheus scrapes the daemon’s page, takes the rules, and answers every question of the board', async (t) => {
  const scratch = await mkdtemp(path.join(tmpdir(), 'domsched-prometheus-'));
  t.teardown(() => rm(scratch, { recursive: true, force: true }));
  const [pagePort, port] = [await freePort(), await freePort()];
  const metrics = new Metrics();
  metrics.tick(tick);
  const token = 'a-token-that-nobody-would-guess';
  const web = await WebServer.open({ listen: parseListen(`127.0.0.1:${pagePort}`), metrics, token });
  t.teardown(() => web.close());
  const config = {
    global: { scrape_interval: '1s', evaluation_interval: '1s' },
    rule_files: [path.join(folder, 'alerts.yml')],
    scrape_configs: [
      {
        job_name: 'domsched',
        authorization: { credentials: token },
        static_configs: [{ targets: [`127.0.0.1:${pagePort}`] }],
      },
    ],
  };
  // JSON is YAML.
  await writeFile(path.join(scratch, 'prometheus.yml'), JSON.stringify(config));
  const args = [
    '--config.file=prometheus.yml',
    '--storage.tsdb.path=data',
    `--web.listen-address=127.0.0.1:${port}`,
  ];
  const prometheus = spawn('prometheus', args, { cwd: scratch, stdio: ['ignore', 'ignore', 'pipe'] });
  t.teardown(() => prometheus.kill('SIGKILL'));
  let said = '';
  prometheus.stderr.on('data', (data) => {
    said = (said + String(data)).slice(-4000);
  });
  const ask = async (query: string) => {
    const url = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(query)}`;
    const answer = await fetch(url).catch(() => undefined);
    // It is not there yet, or not ready.
    if (answer === undefined || answer.status === 503) return undefined;
    return (await answer.json()) as
      | { status: string; data: { result: { metric: Record<string, string>; value: [number, string] }[] } }
      | undefined;
  };
  await until('it has scraped', async () => {
    t.is(prometheus.exitCode, null, said);
    return ((await ask('domsched_wait_seconds_total'))?.data.result.length ?? 0) > 0;
  });
  const [series] = (await ask('domsched_wait_seconds_total'))!.data.result;
  t.like(series, { metric: { victim: 'db/postgres', culprit: 'web/gzip', job: 'domsched' } });
  t.is(series!.value[1], '2');
  const taken = await fetch(`http://127.0.0.1:${port}/api/v1/rules`);
  const rules = (await taken.json()) as { data: { groups: { rules: unknown[] }[] } };
  t.is(rules.data.groups[0]?.rules.length, 4);

  const { panels } = JSON.parse(await readFile(board, 'utf8')) as {
    panels: { id: number; targets: { expr: string }[] }[];
  };
  const asked = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr.replaceAll('$victim', '.*')));
  t.true(asked.length >= 6);
  for (const expr of asked) t.is((await ask(expr))?.status, 'success', expr);
  // A metric that is asked for is one that there is.
  const text = await metrics.text();
  const named = new Set(asked.flatMap((expr) => expr.match(/domsched_\w+/g) ?? []));
  for (const name of named) t.true(text.includes(`# TYPE ${name} `), name);
  t.is(new Set(panels.map(({ id }) => id)).size, panels.length);
});
