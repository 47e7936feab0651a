/** What other hosts say of their processes, which may be anything: on the real server, with forgers beside an honest host. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { connect } from '@nats-io/transport-node';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import pino from 'pino';
import { projectDirectory } from '../../../kernels/paths.ts';
import { comparison, flat } from '../../../runtime/command/ps-order.ts';
import { table } from '../../../runtime/command/ps-table.ts';
import { FleetTicks } from '../../../runtime/command/top-fleet.ts';
import type { ProcessRow } from '../../../runtime/control/control.ts';
import { FLEET } from '../../../runtime/fleet/config.ts';
import { Fleet } from '../../../runtime/fleet/fleet.ts';
import type { Tick } from '../../../runtime/tick/tick.ts';
import { frame } from '../../../runtime/top/frame.ts';
import { FIRST_VIEW } from '../../../runtime/top/view.ts';
import { until } from '../../live/until.ts';
import { NatsServer } from '../fleet/nats-server.ts';

const program = path.join(projectDirectory, 'dist', 'domsched.js');
const ROW = {
  domain: 'web',
  pid: 7,
  tgid: 7,
  ppid: 1,
  comm: 'nginx',
  rawComm: 'nginx',
  state: 'running',
  cpu: 0,
  nice: 0,
  policy: 'normal',
  utimeNs: 1e9,
  stimeNs: 0,
  runtimeNs: 1e9,
  threads: 1,
  kernelThread: false,
  exiting: false,
  startTimeNs: 5,
};

async function operator(t: ExecutionContext, server: NatsServer) {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fleet-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const config = path.join(directory, 'operator.toml');
  await writeFile(config, `[fleet]\nservers = ["${server.url}"]\nname = "operator"\n`);
  return (...args: string[]) =>
    execa(process.execPath, [program, ...args, '--fleet', '-c', config], {
      reject: false,
      maxBuffer: 1 << 28,
      env: { DOMSCHED_RUNTIME_DIR: directory },
    });
}

/** A host that answers with these processes; their times grow by a tenth of a CPU from answer to answer. */
async function honest(t: ExecutionContext, server: NatsServer, name: string, rows: readonly object[]) {
  const fleet = new Fleet(FLEET.parse({ servers: [server.url], name }), pino({ level: 'silent' }));
  let asked = 0;
  fleet.serve(async () => {}, {
    checkPolicy: () => [],
    accounts: async () => ({ ms: 0, threads: [], domains: [] }),
    processes: async () => {
      asked++;
      return { rows: rows.map((row) => ({ ...row, runtimeNs: asked * 1e9 })), errors: [] };
    },
  });
  t.teardown(() => fleet.close());
  await until('it is connected', () => fleet.state.connected, 60_000, 20);
  // Until the server knows what it answers.
  await fleet.settled();
}

/** Somebody with a connection who answers to `ps` with anything. */
async function forger(t: ExecutionContext, server: NatsServer, answers: () => Iterable<unknown>) {
  const connection = await connect({ servers: server.url });
  t.teardown(() => connection.close());
  connection.subscribe('domsched.ask.ps', {
    callback: (_, message) => {
      for (const answer of answers())
        message.respond(typeof answer === 'string' ? answer : JSON.stringify(answer));
    },
  });
  await connection.flush();
}

const answer = (host: string, rows: unknown, more: object = {}) => ({
  v: 1,
  host,
  version: '1',
  rows,
  left: 0,
  errors: [],
  ...more,
});

/** No character of a text acts on a terminal. */
function isPlain(t: ExecutionContext, text: string) {
  t.regex(text, /^[\x20-\x7e\n]*$/);
}

test('lies of a host are left out or shown as text, and hide no honest host', async (t) => {
  await using server = await NatsServer.start();
  const command = await operator(t, server);
  await honest(t, server, 'good', [ROW]);
  const lie = (facts: object) => ({ ...ROW, ...facts });
  const unlike: unknown[] = [
    lie({ pid: '7' }),
    lie({ pid: 1e300 }),
    lie({ nice: 0.5 }),
    lie({ utimeNs: -1 }),
    lie({ runtimeNs: 1e300 }),
    lie({ state: 'a\u001b[2J' }),
    lie({ policy: '\u202e' }),
    lie({ comm: 'x'.repeat(257) }),
    lie({ domain: null }),
    lie({ kernelThread: 'yes' }),
    lie({ threads: undefined }),
    null,
    7,
    'row',
    [],
    [[ROW]],
    {},
  ];
  const odd = [
    lie({ comm: '\u001b[2J\u0007\u202e', domain: 'd\r\n\u001b]0;owned\u0007' }),
    lie({ comm: 'constructor', domain: '__proto__', state: 'constructor' }),
    lie({ comm: '__proto__', domain: 'constructor', pid: -5 }),
  ];
  const proto = `{"v":1,"host":"proto","version":"1","left":0,"errors":[],"rows":[{"__proto__":{"comm":"evil"},"domain":"d"},${JSON.stringify(ROW).replace('{', '{"__proto__":{"comm":"evil"},"toString":1,')}]}`;
  const failure = { domain: 'd', code: 'timeout', message: 'a\u001b[2J\nb' };
  await forger(t, server, () => [
    answer('evil', [...unlike, ...odd]),
    proto,
    answer('failing', [], {
      errors: [failure, { ...failure, code: 'a\u001b[2J' }, { ...failure, message: 1 }, 7],
    }),
    answer('many-failures', [], { errors: Array(5_000).fill(failure) }),
    answer('a\u001b[2J', [ROW]),
    answer('__proto__', [ROW]),
    answer('left', [ROW], { left: 1e300 }),
    answer('good', [lie({ comm: 'forged' })]),
    answer('no-rows', { length: 1e9 }),
    answer('small', Array(200_000).fill(0)),
    'no JSON',
    '['.repeat(100_000),
    { v: 2 },
  ]);
  const { stdout, stderr, exitCode } = await command('ps', '--json');
  t.is(exitCode, 1, 'a host said that it failed');
  isPlain(t, stderr);
  const rows = JSON.parse(stdout) as ProcessRow[];
  t.deepEqual(
    rows.filter(({ domain }) => domain.startsWith('evil/')).map(({ domain, pid }) => [domain, pid]),
    [
      ['evil/d\r\n\u001b]0;owned\u0007', 7],
      ['evil/__proto__', 7],
      ['evil/constructor', -5],
    ],
  );
  isPlain(t, stdout);
  t.deepEqual(
    rows.filter(({ domain }) => domain.startsWith('proto/')).map(({ comm }) => comm),
    ['nginx'],
  );
  t.true(
    rows.some(({ domain, comm }) => domain === 'good/web' && comm === 'nginx'),
    'the honest one is there',
  );
  t.regex(stderr, /good: answered more than once/);
  t.regex(stderr, /[78] answers cannot be read/);
  t.is(stderr.match(/^domsched: failing: /gm)?.length, 1);
  t.is(stderr.match(/^domsched: many-failures: /gm)?.length, 20);

  const table = await command('ps');
  isPlain(t, table.stdout);
  t.is(table.stdout.split('\n').length, rows.length + 1, 'one line each');
  const top = await command('top', '--count', '2', '--interval', '0.1');
  t.is(top.exitCode, 0, top.stderr);
  isPlain(t, top.stdout);
  t.regex(top.stdout, /^good\/web +7 +running .*nginx$/m);
});

test('more rows than a call has room for arguments are listed, and are in one picture', async (t) => {
  // The main thread's stack takes some 120,000 arguments.
  const rows = Array.from({ length: 150_000 }, (_, pid) => ({ ...ROW, pid })) as unknown as ProcessRow[];
  t.is(table(flat(rows, comparison('pid'))).split('\n').length, 1 + rows.length + 1);
  const stop = new AbortController();
  const source = { ask: async () => ({ hosts: [{ host: 'a', heardMs: 1, rows, errors: [] }], notes: [] }) };
  const { value: tick } = await new FleetTicks().ticks(source, stop.signal, 0).next();
  const { lines } = frame(tick as Tick, FIRST_VIEW, { columns: 80, rows: 1e6, colour: false, keys: false });
  t.true(lines.length > rows.length);
});

test('top --fleet: what ran on each host since its answer before, as pictures and as lines of JSON', async (t) => {
  await using server = await NatsServer.start();
  const command = await operator(t, server);
  await honest(t, server, 'a', [ROW, { ...ROW, pid: 8, comm: 'h\\xff', state: 'held', domain: 'b\u00f6se' }]);
  await honest(t, server, 'b', [{ ...ROW, comm: 'mysqld', domain: 'db' }]);
  const { stdout, stderr, exitCode } = await command('top', '--json', '--count', '2', '--interval', '0.1');
  t.is(exitCode, 0, stderr);
  const pictures = stdout.split('\n').map((line) => JSON.parse(line));
  t.is(pictures.length, 2);
  const [first, second] = pictures;
  t.true(first.processes.every(({ share }: { share: number }) => share === 0));
  t.true(second.elapsedMs > 0);
  const find = (comm: string) => second.processes.find((one: { comm: string }) => one.comm === comm);
  t.like(find('mysqld'), { domain: 'b/db', pid: 7, state: 'running', nice: 0, held: null, cpuNs: 2e9 });
  t.true(find('mysqld').share > 0);
  t.like(find('h\udcff'), { domain: 'a/b\u00f6se', state: 'held' });
  const plain = await command('top', '--count', '1');
  t.regex(plain.stdout, /^domsched: 3 domains, 3 processes, 1 held/m);
  t.regex(plain.stdout, /^b\/db +7 +running/m);
});

test('a process’s part of a CPU is that of its own host’s interval; one that is new, or began again, has none', async (t) => {
  const host = (name: string, heardMs: number, ...rows: object[]) => ({
    host: name,
    heardMs,
    rows: rows.map((row) => ({ ...ROW, utimeNs: 0, domain: `${name}/d`, ...row })) as unknown as ProcessRow[],
    errors: [],
  });
  const asked = [
    [
      host('a', 1_000, { runtimeNs: 0 }),
      host('b', 1_400, { runtimeNs: 0 }),
      host('c', 9_000, { runtimeNs: 5e9 }),
    ],
    [
      host('a', 2_000, { runtimeNs: 5e8 }, { pid: 9, runtimeNs: 3e9 }),
      host('b', 1_600, { runtimeNs: 2e8 }),
      host('c', 9_500, { runtimeNs: 1e9, startTimeNs: 6 }),
      host('d', 9_500, { runtimeNs: 1e9 }),
    ],
  ];
  let nowMs = 0;
  const stop = new AbortController();
  const source = {
    ask: async () => {
      nowMs += 700;
      return { hosts: asked.shift()!, notes: [] };
    },
  };
  const ticks = new FleetTicks(() => nowMs).ticks(source, stop.signal, 0);
  await ticks.next();
  const { domains, elapsedMs } = (await ticks.next()).value as Tick;
  t.is(elapsedMs, 700);
  t.deepEqual(
    domains.map(({ name, processes }) => [name, ...processes.map(({ ranNs }) => ranNs / 1e6 / elapsedMs)]),
    [
      ['a/d', 0.5, 0],
      ['b/d', 1],
      ['c/d', 0],
      ['d/d', 0],
    ],
  );
  await ticks.return(undefined);
});

test('what the fleet’s commands advise where nobody answers: what to configure, and how to start', async (t) => {
  await using server = await NatsServer.start();
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fleet-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const config = path.join(directory, 'my config.toml');
  const env = { DOMSCHED_RUNTIME_DIR: directory, XDG_CACHE_HOME: directory };
  const command = (...args: string[]) =>
    execa(process.execPath, [program, ...args, '-c', config], { reject: false, env });
  const refused = async (args: string[], why: RegExp) => {
    const { exitCode, stderr } = await command(...args);
    t.true(exitCode! > 0);
    t.regex(stderr, why, args.join(' '));
    return stderr;
  };
  const OTHERS = [
    ['fleet', 'policy', 'get'],
    ['ps', '--fleet'],
    ['top', '--fleet', '-n', '1'],
  ];
  await refused(
    ['fleet', 'status'],
    /no daemon runs .*ENOENT.*add \[fleet\] .* start one with domsched run -c /s,
  );
  const connect = 'connect = ["qemu:unix:/nowhere"]\n';
  await writeFile(config, connect);
  const [, fleetTable] =
    /add \[fleet\] with (servers = \["nats:\/\/SERVER:4222"\]) to \S* ?\S*, and start/.exec(
      await refused(['fleet', 'status'], /no daemon runs on this host: add/),
    )!;
  for (const args of OTHERS) await refused(args, /has no \[fleet\]: add \[fleet\] with servers/);

  await writeFile(
    config,
    `${connect}[fleet]\nname = "here"\n${fleetTable!.replace('nats://SERVER:4222', server.url)}\n`,
  );
  for (const args of OTHERS.slice(1)) {
    const { stderr, stdout } = await command(...args);
    if (args[0] === 'ps')
      t.regex(stderr, /no host of the fleet answered; domsched fleet status says on each/);
    else t.regex(stdout, /^domsched: 0 domains/);
  }
  const [, start] = /start one with domsched (run -c .*?) ?(\[.*)?$/m.exec(
    await refused(['fleet', 'status'], /no daemon runs on this host: start one with/),
  )!;
  const daemon = execa('sh', ['-c', `exec ${process.execPath} ${program} ${start}`], { env, reject: false });
  await until('a daemon runs', async () => {
    const { exitCode, stdout } = await command('fleet', 'status');
    return exitCode === 0 && /^here: connected/.test(stdout);
  });
  daemon.kill();
  await daemon;
  await server.kill();
  for (const args of OTHERS)
    await refused(
      args,
      /no server of the fleet answers .*; see that it runs, and what servers and tls in \[fleet\] say/,
    );
});
