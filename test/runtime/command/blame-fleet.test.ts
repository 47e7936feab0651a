/** `blame --fleet` on the real server: what honest hosts find, beside forgers, hosts of another version and silent ones. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { connect } from '@nats-io/transport-node';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import pino from 'pino';
import { projectDirectory } from '../../../kernels/paths.ts';
import type { AccountSample } from '../../../runtime/blame/sample.ts';
import { BLAME_FOUND } from '../../../runtime/fleet/blame-word.ts';
import { Blames } from '../../../runtime/fleet/blames.ts';
import { FLEET } from '../../../runtime/fleet/config.ts';
import { Fleet } from '../../../runtime/fleet/fleet.ts';
import { until } from '../../live/until.ts';
import { type Scene, sampleAt } from '../blame/samples.ts';
import { NatsServer } from '../fleet/nats-server.ts';

const program = path.join(projectDirectory, 'dist', 'domsched.js');

/** What is listed of a host. */
const ROW = {
  ...{ domain: 'db', pid: 100, tgid: 100, ppid: 1, comm: 'postgres', state: 'running', cpu: 0, nice: 0 },
  ...{
    policy: 'normal',
    utimeNs: 1,
    stimeNs: 0,
    runtimeNs: 1,
    threads: 1,
    kernelThread: false,
    startTimeNs: 5,
  },
};

async function operator(t: ExecutionContext, server: NatsServer) {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fleet-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  t.context = directory;
  const config = path.join(directory, 'operator.toml');
  await writeFile(config, `[fleet]\nservers = ["${server.url}"]\nname = "operator"\n`);
  return (...args: string[]) =>
    execa(process.execPath, [program, 'blame', '--fleet', '-c', config, ...args], {
      reject: false,
      maxBuffer: 1 << 28,
      env: { DOMSCHED_RUNTIME_DIR: directory },
    });
}

/** Seconds in which postgres of `db` waits 750 ms each on the host, 600 of them behind gzip of `web`. */
const onHost = (seconds: number): Scene[] => [
  {
    name: 'db',
    pid: 1,
    ran: seconds * 250,
    waited: seconds * 750,
    threads: { postgres: [seconds * 250, 0] },
  },
  {
    name: 'web',
    pid: 2,
    ran: seconds * 750,
    waited: 0,
    threads: { gzip: [seconds * 600, 0], nginx: [seconds * 150, 0] },
  },
];

/** Seconds in which it waits 50 ms each in its guest, behind vacuum. */
const inGuest = (seconds: number): Scene[] => [
  {
    name: 'db',
    pid: 1,
    ran: seconds * 1000,
    waited: 0,
    threads: { postgres: [seconds * 950, seconds * 50], vacuum: [seconds * 50, 0] },
  },
];

/** One sample a look, a second apart by the samples' own clock. */
function growing(scenes: (seconds: number) => Scene[]) {
  let seconds = 0;
  return async () => sampleAt(1000 * ++seconds, scenes(seconds));
}

async function honest(
  t: ExecutionContext,
  server: NatsServer,
  name: string,
  accounts: () => Promise<AccountSample>,
) {
  const fleet = new Fleet(FLEET.parse({ servers: [server.url], name }), pino({ level: 'silent' }));
  const processes = async () => ({ rows: [ROW], errors: [] });
  fleet.serve(async () => {}, { checkPolicy: () => [], processes, accounts });
  t.teardown(() => fleet.close());
  await until('it is connected', () => fleet.state.connected, 60_000, 20);
  // Until the server knows what it answers.
  await fleet.settled();
}

/** Somebody with a connection who answers to questions about `what` with anything. */
async function answering(
  t: ExecutionContext,
  server: NatsServer,
  what: string,
  answers: (asked: { do: string }) => Iterable<unknown>,
) {
  const connection = await connect({ servers: server.url });
  t.teardown(() => connection.close());
  connection.subscribe(`domsched.ask.${what}`, {
    callback: (_, message) => {
      for (const answer of answers(message.json()))
        message.respond(typeof answer === 'string' ? answer : JSON.stringify(answer));
    },
  });
  await connection.flush();
}

const word = (host: string, more: object) => ({ v: 1, host, version: '0.1.0', ...more });

interface ToldBlame {
  readonly hosts: readonly {
    readonly host: string;
    readonly waitedNs: number;
    readonly culprits: readonly { readonly process: string | null; readonly share: number }[];
    readonly rest: { readonly share: number; readonly culprits: number };
  }[];
  readonly silent: readonly string[];
}

const sharesOf = ({ culprits, rest }: ToldBlame['hosts'][number]) =>
  culprits.reduce((sum, { share }) => sum + Math.round(share * 1000), Math.round(rest.share * 1000));

test('each host says for whom its processes wait, in one table, the longest wait first', async (t) => {
  await using server = await NatsServer.start();
  const command = await operator(t, server);
  await honest(t, server, 'a', growing(inGuest));
  await honest(t, server, 'b', growing(onHost));
  await honest(t, server, 'c', async () => sampleAt(performance.now(), []));
  const asked = ['db', 'postgres', '--for', '0.6', '--interval', '0.25'];
  const { stdout, stderr, exitCode } = await command(...asked, '--json');
  t.is(exitCode, 0, stderr);
  const { hosts, silent } = JSON.parse(stdout) as ToldBlame;
  t.deepEqual(silent, []);
  t.deepEqual(
    hosts.map((one) => [one.host, one.culprits.map(({ process: name, share }) => `${name} ${share}`)]),
    [
      ['b', ['gzip 0.8', 'nginx 0.2']],
      ['a', ['vacuum 1']],
      ['c', []],
    ],
  );
  const text = await command(...asked);
  t.regex(text.stdout, /^On 3 hosts, postgres of db ran for /);
  const lines = text.stdout.split('\n').filter((line) => /web: |db: vacuum/.test(line));
  t.deepEqual(
    lines.map(
      (line) =>
        line
          .split(/ {2,}|│/)
          .map((cell) => cell.trim())
          .filter((cell) => cell !== '')[0],
    ),
    ['b', 'b', 'a'],
  );

  // By its name in ps --fleet, and by a pattern of hosts.
  const named = JSON.parse((await command('a/db', '--for', '0.3', '--json')).stdout) as ToldBlame;
  t.deepEqual(
    named.hosts.map(({ host, waitedNs }) => [host, waitedNs > 0]),
    [
      ['a', true],
      ['b', false],
      ['c', false],
    ],
  );
  const chosen = JSON.parse(
    (await command('--host', 'b', 'x*', '--for', '0.3', '--json')).stdout,
  ) as ToldBlame;
  t.deepEqual(
    chosen.hosts.map(({ host }) => host),
    ['b'],
  );
});

test('what no host has, what no host is asked, and wrong usage are told at once', async (t) => {
  await using server = await NatsServer.start();
  const command = await operator(t, server);
  const refused = async (args: readonly string[], code: number, why: RegExp) => {
    const { stderr, exitCode } = await command(...args);
    t.regex(stderr, why, args.join(' '));
    t.is(exitCode, code);
  };
  await refused([], 1, /no host of the fleet answered; domsched fleet status says on each/);
  await honest(t, server, 'a', growing(inGuest));
  // A day is not waited for.
  await refused(['mail', '--for', '500'], 1, /no host has a domain mail; domsched ps --fleet lists/);
  const { stderr } = await command('db', 'mysqld', '--for', '500');
  const [, advised] = /no host has a process mysqld there; domsched (.*) lists those/.exec(stderr)!;
  const config = path.join(t.context as string, 'operator.toml');
  const listed = await execa(process.execPath, [program, ...advised!.split(' '), '-c', config]);
  t.regex(listed.stdout, /^a\/db .* postgres$/m);
  await refused(['--host', 'x*', '--for', '500'], 1, /no host that x\* means of the fleet answered/);
  const alone = (...args: string[]) =>
    execa(process.execPath, [program, 'blame', ...args], { reject: false });
  const without = await alone('--host', 'a');
  t.is(without.exitCode, 2);
  const [, added] = /hosts of a fleet: add (\S+)/.exec(without.stderr)!;
  const chosen = await alone('--host', 'a', '-c', config, added!, '--for', '0.3');
  t.regex(chosen.stdout, /^On 1 host, /);
  t.regex((await alone()).stderr, /name the domain; domsched domains lists/);
  await refused(['--for', '601'], 2, /at most 600 s/);
  await refused(['--interval', '0.1'], 2, /0\.25 to 60 s/);
});

test('lies of a host add up and are shown as text; who tells nothing is named, and who cannot be asked', async (t) => {
  await using server = await NatsServer.start();
  const command = await operator(t, server);
  await honest(t, server, 'good', growing(onHost));
  // A version that knows no blame, and a host that is cut off after it began.
  await answering(t, server, 'check', () => [
    word('old', { version: '0.0.9\u001b[2J', problems: [] }),
    word('cut', { problems: [] }),
  ]);
  const culprit = { kind: 'process', domain: 'd', comm: 'c', place: 'host', waitedNs: 1 };
  const found = (culprits: unknown, more: object = {}) => ({
    elapsedNs: 1e9,
    samples: 2,
    ranNs: 0,
    culprits,
    rest: { culprits: 0, inGuestNs: 0, onHostNs: 0 },
    processes: [],
    moreProcesses: 0,
    notes: [],
    ...more,
  });
  const odd = [
    {
      ...culprit,
      domain: '\u001b]0;owned\u0007',
      comm: '\u001b[2J\u202e',
      waitedNs: Number.MAX_SAFE_INTEGER,
    },
    { ...culprit, domain: '__proto__', comm: 'constructor', waitedNs: 7 },
  ];
  await answering(t, server, 'blame', (asked) =>
    asked.do === 'begin'
      ? [word('evil', { domains: 1, processes: 1 }), word('cut', { domains: 1, processes: 1 })]
      : [
          word(
            'evil',
            found(odd, { rest: { culprits: 9, inGuestNs: 5, onHostNs: Number.MAX_SAFE_INTEGER } }),
          ),
          word('good', found([culprit])),
          word('busy', { error: { code: 'refused', message: 'a\u001b[2J\nb' } }),
          word('many', found(Array(201).fill(culprit))),
          word('negative', found([{ ...culprit, waitedNs: -1 }])),
          word('half', found([{ ...culprit, waitedNs: 0.5 }])),
          word('huge', found([{ ...culprit, waitedNs: 1e300 }])),
          word('kind', found([{ ...culprit, kind: '__proto__' }])),
          word('long', found([{ ...culprit, comm: 'x'.repeat(257) }])),
          word('note', found([], { notes: [{ code: 'constructor', domain: 'd' }] })),
          word('a\u001b[2J', found([])),
          'no JSON',
          '['.repeat(100_000),
        ],
  );
  const asked = ['--for', '0.3'];
  const { stdout, stderr, exitCode } = await command(...asked, '--json');
  t.is(exitCode, 3, 'a host refused');
  const { hosts, silent } = JSON.parse(stdout) as ToldBlame;
  t.deepEqual(
    hosts.map(({ host }) => host).filter((host) => host !== 'good'),
    ['evil'],
  );
  for (const one of hosts.filter(({ waitedNs }) => waitedNs > 0)) t.is(sharesOf(one), 1000, one.host);
  t.true(
    hosts.some(({ host, culprits }) => host === 'good' && culprits[0]?.process === 'gzip'),
    'the honest one is there',
  );
  t.deepEqual(silent, ['cut', 'old']);
  t.regex(stderr, /good: answered more than once/);
  t.regex(stderr, /10 answers cannot be read/);
  t.regex(stderr, /cut \(0\.1\.0\) is there and tells nothing/);
  t.regex(stderr, /busy: a\\x1b\[2J\\x0ab \[refused\]/);
  const text = await command(...asked);
  for (const shown of [stdout, stderr, text.stderr]) t.regex(shown, /^[\x20-\x7e\n]*$/);
  t.regex(text.stdout, /^[\x20-\x7e\u00b5\n\u2500-\u257f]*$/);
});

test('a host looks for a few at a time, no longer than it was asked, and rests between looks', async (t) => {
  let nowMs = 0;
  let looks = 0;
  const blames = new Blames(
    'a',
    async () => {
      looks++;
      nowMs += 100;
      return sampleAt(nowMs, onHost(looks));
    },
    () => nowMs,
  );
  const ask = (id: string) => ({ id, seconds: 0.5, interval: 0.25, hosts: [] });
  t.deepEqual(await blames.begin(ask('the-first')), { domains: 2, processes: 3 });
  t.is(await blames.begin(ask('the-first')), undefined, 'what is asked twice is begun once');
  await blames.begin(ask('the-second'));
  t.like(await blames.begin(ask('the-third')), { error: { code: 'refused' } });
  t.is(await blames.begin({ ...ask('the-fourth'), hosts: ['b*'] }), undefined);
  t.is(looks, 2);
  // Each look took 100 ms: after nine times as long it is past the end of both.
  t.is(await blames.end('another'), undefined);
  const found = BLAME_FOUND.parse(await blames.end('the-first'));
  t.true('culprits' in found && found.samples === 2);
  t.is(await blames.end('the-first'), undefined);
  await blames.begin(ask('the-third'));
  blames.close();
  t.is(looks, 4);
});
