/** `domsched blame` over two Debian guests on one CPU of the host, with planted loads; then on CPUs of their own. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { addsUp, type BlameAnswer } from './blame-sums.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { until } from './until.ts';

/** Shares of the truth and ours may differ by this. */
const CLOSE = 0.05;
const common = { cpus: 1, memory: 256, shellNice: -10 } as const;

test('who had the CPU is named, with shares as the kernels of host and guests count them', async (t) => {
  t.timeout(600_000);
  const boots = [
    bootDebian({
      ...common,
      name: 'db',
      programs: [
        { kind: 'burner', name: 'postgres' },
        { kind: 'burner', name: 'vacuum', nice: 5 },
      ],
    }),
    bootDebian({
      ...common,
      name: 'web',
      programs: [
        { kind: 'burner', name: 'gzip' },
        { kind: 'burner', name: 'nginx', nice: 5 },
      ],
    }),
  ];
  await using stack = new AsyncDisposableStack();
  for (const boot of await Promise.allSettled(boots)) if (boot.status === 'fulfilled') stack.use(boot.value);
  const [db, web] = (await Promise.all(boots)) as unknown as [LiveGuest, LiveGuest];
  const run = await mkdtemp(path.join(tmpdir(), 'blame-'));
  stack.defer(() => rm(run, { recursive: true }));
  const places = [db, web].flatMap(({ connection }) => ['--connect', connection]);
  const domsched = (...args: string[]) =>
    execa(process.execPath, [path.join(projectDirectory, 'domsched.ts'), ...args, ...places], {
      env: { DOMSCHED_RUNTIME_DIR: run },
      reject: false,
    });
  for (const guest of [db, web]) await pin(guest, 0);

  const before = await counters(db, web);
  const { stdout, stderr, exitCode } = await domsched('blame', 'db', 'postgres', '--for', '4s', '--json');
  const after = await counters(db, web);
  t.is(exitCode, 0, stderr);
  const answer = JSON.parse(stdout) as BlameAnswer;
  addsUp(t, answer);
  // Other tests run beside this one, and are culprits of their own.
  const [first] = answer.culprits.filter(({ kind }) => kind === 'process');
  t.like(first, { domain: 'web', process: 'gzip', place: 'host' });
  const part = (wanted: Partial<BlameAnswer['culprits'][number]>) =>
    answer.culprits
      .filter((each) => Object.entries(wanted).every(([key, value]) => each[key as 'kind'] === value))
      .reduce((sum, { waitedNs }) => sum + waitedNs, 0);
  // In its own guest it waits for the only other load, and for what a guest does after its boot.
  const inside = answer.culprits.filter(({ place }) => place === 'guest');
  t.is(inside[0]?.process, 'vacuum');
  t.true(part({ place: 'guest', process: 'vacuum' }) > 0.7 * part({ place: 'guest' }));
  // On the host, by what the host's kernel says that threads of both machines ran, all of them on one CPU.
  const ran = (name: keyof typeof after) => after[name] - before[name];
  const ofWeb = part({ place: 'host', domain: 'web' }) - part({ kind: 'machine', domain: 'web' });
  const ofMachines = part({ kind: 'machine', domain: 'web' }) + part({ kind: 'machine', domain: 'db' });
  near(t, ofWeb / (ofWeb + ofMachines), ran('webVcpu') / (ran('webVcpu') + ran('webRest') + ran('dbRest')));
  // Within the other guest, by its own kernel.
  const gzip = part({ place: 'host', process: 'gzip' });
  const nginx = part({ place: 'host', process: 'nginx' });
  near(t, gzip / (gzip + nginx), ran('gzip') / (ran('gzip') + ran('nginx')));
  // How long it waited and ran: its vCPU's waits are half known to its guest.
  t.true(answer.waitedNs + answer.ranNs > 0.9 * answer.elapsedNs);
  t.true(answer.waitedNs + answer.ranNs < 1.1 * answer.elapsedNs);
  t.deepEqual(answer.notes, []);

  // Interrupted, in words, over all of the domain.
  const early = domsched('blame', 'web', '--for', '600');
  await until('it reads the guest', () => reads(early.pid!, path.join(web.directory, 'memory')));
  await sleep(500);
  early.kill('SIGINT');
  const said = await early;
  t.is(said.exitCode, 0, said.stderr);
  t.regex(said.stdout, /^In [\d.]+ m?s, the processes of web ran for .* and waited for a CPU for /);
  t.regex(said.stdout, /% │ host +│ db: postgres/);
  t.regex(said.stdout, /% │ guest │ web: gzip/);

  // A daemon answers from its own look at them, without --connect.
  await using daemon = new DaemonProcess(run, [db.connection, web.connection]);
  await daemon.configure('');
  daemon.start();
  await using control = await daemon.control();
  await until('the daemon reads both', async () => {
    const { domains } = await control.accounts();
    return domains.filter(({ threads }) => threads.length > 0).length === 2;
  });
  const byDaemon = JSON.parse(
    (await daemon.domsched('blame', 'db', 'postgres', '--for', '2', '--json')).stdout,
  ) as BlameAnswer;
  addsUp(t, byDaemon);
  t.like(
    byDaemon.culprits.find(({ kind, place }) => kind === 'process' && place === 'host'),
    { domain: 'web', process: 'gzip' },
  );
  await daemon.end('SIGTERM');

  // On another CPU of the host they are nobody's fault there.
  await pin(web, 1);
  const apart = JSON.parse(
    (await domsched('blame', 'db', '--for', '2', '--interval', '0.1', '--json')).stdout,
  ) as BlameAnswer;
  addsUp(t, apart);
  const fromWeb = apart.culprits.filter(({ domain }) => domain === 'web');
  t.true(fromWeb.reduce((sum, { waitedNs }) => sum + waitedNs, 0) < CLOSE * apart.waitedNs);

  for (const [args, code, text] of [
    [['blame', 'db', 'mysqld'], 1, /has no process mysqld; domsched ps db .*\[process-not-found\]/],
    [['blame', 'mail'], 1, /there is no domain mail; domsched domains .*\[domain-not-found\]/],
    [['blame', 'db', '--for', 'ever'], 2, /no number of seconds/],
  ] as const) {
    const failed = await domsched(...args);
    t.is(failed.exitCode, code, args.join(' '));
    t.regex(failed.stderr, text);
    t.is(failed.stdout, '');
  }
  for (const guest of [db, web]) guest.checkConsole();
});

function near(t: ExecutionContext, ours: number, truth: number): void {
  t.true(Math.abs(ours - truth) <= CLOSE, `${ours} is not near ${truth}`);
}

/** Whether a process has a file open, or in its memory. */
function reads(pid: number, file: string): boolean {
  const open = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    const link = `/proc/${pid}/fd/${fd}`;
    return existsSync(link) ? readlinkSync(link) : '';
  });
  return open.includes(file) || readFileSync(`/proc/${pid}/maps`, 'latin1').includes(file);
}

async function pin({ process: { pid } }: LiveGuest, cpu: number): Promise<void> {
  await execa('taskset', ['-a', '-c', '-p', String(cpu), String(pid)]);
}

/** CPU time so far in ns, as the kernels say: of the machines' threads, and of the loads in `web`. */
async function counters(db: LiveGuest, web: LiveGuest) {
  const [webVcpu, webRest] = machineTimes(web);
  const [, dbRest] = machineTimes(db);
  const find = 'for d in /proc/[0-9]*; do read c <$d/comm; [ "$c" = $n ] && cat $d/schedstat; done; true';
  const text = await web.run(`for n in gzip nginx; do ${find}; done`);
  const [gzip, nginx] = text
    .trim()
    .split('\n')
    .map((line) => Number(line.split(' ')[0]));
  return { webVcpu, webRest, dbRest, gzip: gzip!, nginx: nginx! };
}

/** Of the thread that ran most, which runs the only vCPU, and of all others. */
function machineTimes({ process: { pid } }: LiveGuest): [number, number] {
  const times = readdirSync(`/proc/${pid}/task`).map((tid) =>
    Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'latin1').split(' ')[0]),
  );
  const most = Math.max(...times);
  return [most, times.reduce((a, b) => a + b, 0) - most];
}
