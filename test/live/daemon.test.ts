import { randomBytes } from 'node:crypto';
/** `domsched run` over a Debian guest and an O(1) guest: policies across both, signals, and an end at any moment. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import type { Tick } from '../../runtime/tick/tick.ts';
import { freePort } from '../runtime/free-port.ts';
import { openPage } from '../runtime/web/page/browser.ts';
import { DaemonBench } from './daemon.ts';
import type { LogLine } from './daemon-process.ts';
import { O1Memory } from './o1-memory.ts';
import { linesOf, look, lookBoth } from './page.ts';
import { TOGGLE } from './toggle.ts';
import { until } from './until.ts';

/** At least so many, and on until what matters of {@link Met} was met some times. */
const KILLS = Number(process.env.DOMSCHED_KILLS ?? 12);
const MOST_KILLS = 5 * KILLS;
const PROMPT_ATTEMPTS = 3;
const LEAST_OF_EACH = 2;
/** Kills after which a soak says how far it is. */
const REPORT_EVERY = 500;
/** Longer than the policy takes to hold and release everybody. */
const SOME_TURNS_MS = 250;
/** Longer than an edit takes. */
const AN_EDIT_MS = 0.3;

test.serial('a backup in one guest runs only while the service in the other rests; signals', async (t) => {
  t.timeout(1_200_000);
  await using bench = await DaemonBench.boot(
    { programs: [{ kind: 'burner', name: 'backup' }] },
    'report=50 run=pi1',
  );
  const idleOnly = [
    '[[policy]]\ntype = "idle-only"\nname = "night"\nselect = [{ domain = "web", comm = "backup" }]',
    // The shell that is asked for progress.
    'ignore = [{ domain = "web", comm = ["init", "sh", "workload"] }]',
  ].join('\n');
  await bench.goesOn('backup', 'pi1');
  await bench.configure(idleOnly);
  bench.start();

  // pi1 of the other guest runs all the time, so the backup stops.
  await bench.logs(({ msg, outcome }) => msg === 'hold' && outcome === 'held');
  const { backup } = await bench.progress('backup');
  await bench.goesOn('pi1');
  t.is((await bench.progress('backup')).backup, backup);
  const { stdout } = await bench.domsched('ps', '--json');
  const rows = JSON.parse(stdout) as { domain: string; comm: string; state: string }[];
  t.is(rows.find(({ comm }) => comm === 'backup')!.state, 'held', 'ps asks the daemon');
  t.true(rows.some(({ domain }) => domain === 'batch'));

  // An operator stops pi1: nobody else runs any more, and the backup goes on.
  const held = JSON.parse((await bench.domsched('hold', 'batch', 'pi1', '--json')).stdout);
  t.like(held[0], { domain: 'batch', outcome: 'held' });
  await bench.goesOn('backup');
  const from = bench.logged();
  await bench.domsched('release', 'batch', 'pi1');
  await bench.goesOn('pi1');
  await bench.logs(({ msg, outcome }) => msg === 'hold' && outcome === 'held', from);

  // SIGHUP: a broken configuration changes nothing; another one takes hold without letting go.
  const before = bench.logged();
  await writeFile(bench.configFile, 'interval = "often"');
  bench.signal('SIGHUP');
  await bench.logs(({ msg }) => msg === 'the configuration stays as it was', before);
  await bench.configure(idleOnly, 'interval = 0.05\nmaxHold = false');
  bench.signal('SIGHUP');
  await bench.logs(({ msg }) => msg === 'configuration read again', before);
  const stopped = await bench.progress('backup');
  await bench.goesOn('pi1');
  t.deepEqual(await bench.progress('backup'), stopped);
  t.false(bench.log(before).some(({ msg }) => msg === 'released'));

  // Watching through the control socket: ticks, who is held and why.
  await using client = await bench.control();
  const report = await firstOf(client.ticks({ signal: new AbortController().signal, intervalMs: 0 }));
  const shown = report.domains.flatMap(({ processes }) => processes).find(({ comm }) => comm === 'backup');
  t.like(shown, { state: 'held', held: { policy: 'night' } });
  const second = await bench.domsched('run', '-c', bench.configFile).catch((error) => error);
  t.is(second.exitCode, 3, 'one daemon at a time');

  await showsOnPage(t, bench, idleOnly);
  await boundsLies(t, bench, idleOnly);
  await protects(bench);
  await isPrompt(t, bench, idleOnly);

  t.is(await bench.end('SIGTERM'), 0);
  await bench.goesOn('backup', 'pi1');
  t.regex((await bench.domsched('release', '--all')).stdout, /nothing is held/);
  bench.checkConsoles();
});

async function firstOf<T>(values: AsyncIterable<T>): Promise<T> {
  for await (const value of values) return value;
  throw new Error('there was none');
}

/**
 * Between two looks that are far apart somebody begins to run: the second one comes at once. On a busy host that look may
 * be due by itself, or one may have come in vain just before.
 */
async function isPrompt(t: ExecutionContext, bench: DaemonBench, policy: string): Promise<void> {
  await bench.domsched('hold', 'batch', 'pi1');
  const from = bench.logged();
  await bench.configure(policy, 'interval = 3.0\nidleInterval = 3.0\nmaxHold = false');
  bench.signal('SIGHUP');
  await bench.logs(({ msg }) => msg === 'configuration read again', from);
  for (let attempt = 1; ; attempt++) {
    await bench.goesOn('backup');
    // The sentinel begins after a look at which the backup runs.
    await sleep(7_000);
    const begun = bench.logged();
    await bench.domsched('release', 'batch', 'pi1');
    await bench.goesOn('pi1');
    await bench.logs(({ msg, outcome }) => msg === 'hold' && outcome === 'held', begun);
    const order = bench.log(begun).map(({ msg }) => msg);
    const forward = order.indexOf('a look was brought forward');
    if (forward >= 0 && forward < order.indexOf('holding')) return;
    if (attempt === PROMPT_ATTEMPTS) {
      t.fail(order.join('\n'));
      return;
    }
    await bench.domsched('hold', 'batch', 'pi1');
  }
}

/**
 * What the other guest really does leaves the backup its guarantee. While its vCPUs idle, words of its memory that claim
 * CPU time for a process that sleeps hold nobody.
 */
async function boundsLies(t: ExecutionContext, bench: DaemonBench, policy: string): Promise<void> {
  const from = bench.logged();
  await bench.configure(policy, 'interval = 0.1\nmaxHold = false\nslice = 0.5\nguarantee = 0.2');
  bench.signal('SIGHUP');
  const isGuaranteed = ({ msg, reason }: LogLine) =>
    msg === 'release' && reason === 'its domain is guaranteed 20 % of a CPU';
  await bench.logs(isGuaranteed, from);
  await bench.goesOn('backup', 'pi1');
  await bench.logs(({ msg, reason = '' }) => msg === 'hold' && /runs; its domain is/.test(reason), from);

  await bench.domsched('hold', 'batch', 'pi1');
  await bench.goesOn('backup');
  await using memory = await O1Memory.open(bench.batch, 'base');
  const init = (await memory.tasks()).get('init')!;
  const first = (await memory.get('task_struct', init, 'sched_time')) + 1_000_000_000n;
  const queue = await memory.runqueue(0);
  const begin = performance.now();
  const forge = async () => {
    const claimed = BigInt(Math.round((performance.now() - begin) * 1e6));
    // Fifty CPUs' worth, and as many switches as make the daemon look.
    await memory.set('task_struct', init, 'sched_time', first + 50n * claimed);
    await memory.set(
      'runqueue',
      queue,
      'nr_switches',
      (await memory.get('runqueue', queue, 'nr_switches')) + 2n,
    );
    return performance.now() - begin;
  };
  const known = await until(
    'the daemon sees that it claims too much',
    async () => {
      await forge();
      return bench.log(from).find(({ msg }) => msg.startsWith('this guest claims more CPU time'));
    },
    120_000,
    20,
  );
  t.is(known.domain, bench.connections[1]!.replace('qemu:unix:', ''));
  const caught = bench.logged();
  const before = await bench.progress('backup');
  for (const end = (await forge()) + 4_000; (await forge()) < end; ) await sleep(20);
  t.deepEqual(
    bench.log(caught).filter(({ msg }) => msg === 'holding'),
    [],
  );
  t.true((await bench.progress('backup')).backup! > before.backup!);
  await bench.domsched('release', 'batch', 'pi1');
  await bench.goesOn('pi1');
}

/** On one CPU for both guests, the backup is held when pi1 of the other one waits too long, and not otherwise. */
async function protects(bench: DaemonBench): Promise<void> {
  for (const pid of [bench.web.process.pid!, bench.batch.pid])
    await execa('taskset', ['--all-tasks', '--cpu-list', '--pid', '0', String(pid)]);
  const target = (seconds: number) =>
    [
      `[[policy]]\ntype = "protect"\nname = "target"\nwait = ${seconds}`,
      'protect = [{ domain = "batch", comm = "pi1" }]\nselect = [{ domain = "web", comm = "backup" }]',
    ].join('\n');
  const from = bench.logged();
  await bench.configure(target(0.005));
  bench.signal('SIGHUP');
  const isHeld = ({ msg, policy, reason = '' }: LogLine) =>
    msg === 'hold' &&
    policy === 'target' &&
    /^held \d+ % of the time: batch: pi1 \(\d+\) waited [\d.]+ ms/.test(reason);
  await bench.logs(isHeld, from);
  await bench.goesOn('pi1');
  const lax = bench.logged();
  await bench.configure(target(1));
  bench.signal('SIGHUP');
  await bench.logs(({ msg }) => msg === 'released', lax);
  await bench.goesOn('backup');
}

/** While the backup is held: the page has what the API has, and comes back when the daemon was killed. */
async function showsOnPage(t: ExecutionContext, bench: DaemonBench, policy: string): Promise<void> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/`;
  const from = bench.logged();
  const keys = 'interval = 0.5\nidleInterval = 0.5\nmaxHold = false';
  const token = randomBytes(24).toString('hex');
  const tokenFile = path.join(bench.directory, 'token');
  await writeFile(tokenFile, token, { mode: 0o600 });
  const http = `[http]\nlisten = "127.0.0.1:${port}"\ntokenFile = "${tokenFile}"`;
  await bench.configure(`${policy}\n${http}`, keys);
  bench.signal('SIGHUP');
  await bench.logs(({ msg }) => msg === 'configuration read again', from);
  await using opened = await openPage(`${url}?token=${token}`);
  const { page, errors } = opened;
  const isRight = async (): Promise<Tick> => {
    const { shown, state } = await lookBoth(page, url, token);
    t.deepEqual(shown.lines, linesOf(state));
    const held = state.domains.flatMap(({ processes }) => processes.filter((process) => process.held));
    t.deepEqual(
      held.map(({ comm }) => comm),
      ['backup'],
    );
    t.is(shown.held.length, 1);
    t.regex(shown.held[0]!, /^backup \d+ in web.*night: /);
    t.true(shown.held[0]!.includes(held[0]!.held!.reason));
    return state;
  };
  const before = await isRight();
  t.deepEqual(
    before.domains.map(({ name }) => name),
    ['web', 'batch'],
  );
  t.deepEqual(errors, []);

  const stopped = await bench.progress('backup');
  await bench.end('SIGKILL');
  await until('the page connects again', async () => (await look(page)).status === 'reconnecting', 300_000);
  const again = bench.logged();
  bench.start();
  await bench.logs(({ msg }) => msg === 'taken over', again);
  // By the new daemon's first ticks nobody can say yet what ran.
  await until(
    'the new daemon has looked',
    async () => {
      const { state } = await lookBoth(page, url, token);
      return state.tick > 3 && state.domains.every(({ error }) => error === undefined);
    },
    300_000,
  );
  await isRight();
  t.deepEqual(await bench.progress('backup'), stopped, 'nor did it run between the two daemons');
}

test.serial('selectors: user, control group and command line of a live guest', async (t) => {
  t.timeout(1_200_000);
  await using bench = await DaemonBench.boot(
    {
      programs: [{ kind: 'burner', name: 'backup' }],
      setup: 'mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && mkdir /sys/fs/cgroup/jobs',
    },
    'report=50 run=sleeper',
  );
  await bench.web.run(
    '(echo 0 > /sys/fs/cgroup/jobs/cgroup.procs; exec workload burner grouped) >/dev/null 2>&1 &',
  );
  await bench.web.run('workload burner owned 1234 >/dev/null 2>&1 &');
  await bench.goesOn('grouped', 'backup', 'owned');
  const toggle = (select: string) => `[[policy]]\ntype = "module"\nmodule = "hold.mjs"\nselect = [${select}]`;
  await writeFile(path.join(bench.directory, 'hold.mjs'), HOLD);
  for (const [select, name, other] of [
    ['{ cgroup = "/jobs" }', 'grouped', 'backup'],
    ['{ user = 1234 }', 'owned', 'backup'],
    ['{ command = "/bin/workload burner backup" }', 'backup', 'grouped'],
  ] as const) {
    const from = bench.logged();
    await bench.configure(toggle(select));
    bench.start();
    const line = await bench.logs(({ msg, outcome }) => msg === 'hold' && outcome === 'held', from);
    t.is(line.comm, name);
    const before = await bench.progress(name);
    await bench.goesOn(other);
    t.deepEqual(await bench.progress(name), before);
    t.is(await bench.end('SIGTERM'), 0);
    await bench.goesOn(name);
  }
  bench.checkConsoles();
});

/** A policy of a user: everything is held. */
const HOLD = `export default () => ({ subjects }) =>
  ({ actions: [...subjects].map((process) => ({ type: 'hold', process, reason: 'test' })) });`;

test.serial(
  'killed at random moments, again and again: nobody is left held, nobody is released twice',
  async (t) => {
    t.timeout(MOST_KILLS * 60_000 + 600_000);
    const programs = [
      { kind: 'burner', name: 'burner' },
      { kind: 'pipe', name: 'pipe' },
      { kind: 'threads', name: 'threads' },
    ] as const;
    await using bench = await DaemonBench.boot({ programs }, 'report=50 run=pi1,pi2,pi3');
    const names = ['burner', 'pipe', 'threads', 'pi1', 'pi2', 'pi3'];
    await bench.goesOn(...names);
    // Most of a turn is the start of the daemon.
    bench.yieldToDaemon();
    await writeFile(path.join(bench.directory, 'toggle.mjs'), TOGGLE);
    await bench.configure(
      `[[policy]]\ntype = "module"\nmodule = "toggle.mjs"\nselect = [{ comm = ${JSON.stringify(names)} }]`,
      'interval = 0.02',
    );
    const busy = ({ msg }: LogLine) => msg === 'holding' || msg === 'released';
    const met: Met = { starting: 0, holding: 0, idle: 0, editing: 0 };
    const least = () => Math.min(met.starting, met.holding, met.editing);
    const isEnough = () => kills >= KILLS && least() >= LEAST_OF_EACH;
    const began = performance.now();
    let kills = 0;
    let wayMs = 1_000;
    for (; !isEnough() && kills < MOST_KILLS; kills++) {
      const from = bench.logged();
      const before = bench.remains();
      const child = bench.start();
      const started = performance.now();
      // Half of the time the kind that was met least, so that few kills meet all.
      const rarest = met.starting < met.editing ? 0 : 1;
      const dice = Math.random() < 0.5 ? rarest : Math.random();
      if (dice < 0.2) {
        // Anywhere on the way to its first edit.
        await sleep(wayMs * Math.random());
      } else {
        const isBusy = () => child.exitCode !== null || bench.log(from).some(busy);
        await until('it edits', isBusy, 300_000, 5);
        t.is(child.exitCode, null, 'it did not end by itself');
        wayMs = performance.now() - started;
        if (dice < 0.8) await sleep(SOME_TURNS_MS * Math.random());
        else if (bench.seesEdit(2_000)) spin(AN_EDIT_MS * Math.random());
      }
      await bench.end('SIGKILL');
      const { held, edits } = bench.remains();
      if (!bench.log(from).some(({ msg }) => msg === 'attached')) met.starting += 1;
      else if (edits.some((edit) => !before.edits.includes(edit))) met.editing += 1;
      else if (held.length > 0) met.holding += 1;
      else met.idle += 1;
      if ((kills + 1) % REPORT_EVERY === 0)
        console.log(`# killed ${kills + 1} times: ${JSON.stringify(met)}`);
    }
    const log = bench.log();
    const count = (is: (line: LogLine) => boolean) => log.filter(is).length;
    t.log(`${kills} kills, ${Math.round((performance.now() - began) / kills)} ms each`);
    t.log(
      `${met.starting} while it started, ${met.editing} in the middle of an edit, ` +
        `${met.holding} between edits with somebody held, ${met.idle} with nobody held`,
    );
    t.log(
      `${count(({ msg }) => msg === 'taken over')} holds taken over, ` +
        `${count(({ recovery }) => recovery === 'resumed')} pauses ended, ` +
        `${count(({ recovery }) => recovery === 'undone')} half-written edits undone`,
    );
    t.true(kills >= KILLS);
    t.true(least() >= LEAST_OF_EACH);

    // With no daemon: one command lets everything go, and there is nothing for a second one to do.
    await bench.domsched('release', '--all', '--timeout', '60');
    t.regex((await bench.domsched('release', '--all')).stdout, /nothing is held/);
    t.deepEqual(bench.remains(), { held: [], edits: [] });
    await bench.goesOn(...names);
    t.deepEqual(releasedTwice(log), []);
    t.deepEqual(
      log.filter(({ level }) => level >= 50),
      [],
    );
    bench.checkConsoles();
  },
);

/** What kills met, by what they left behind: each kill counts once. */
interface Met {
  /** Not attached to any domain yet. */
  starting: number;
  /** An edit was being written, and its domain paused. */
  editing: number;
  /** Between edits, somebody being held. */
  holding: number;
  /** Nobody being held. */
  idle: number;
}

/** Waits without letting go of the CPU: no timer is as quick. */
function spin(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

/** Releases without a hold since the one before. Holds are logged before their first byte is written. */
function releasedTwice(log: readonly { msg: string; key?: string; outcome?: string }[]): string[] {
  const free = new Set<string>();
  const twice: string[] = [];
  for (const { msg, key, outcome } of log) {
    if (key === undefined) continue;
    if (msg === 'holding') free.delete(key);
    if (msg !== 'released' || outcome !== 'released') continue;
    if (free.has(key)) twice.push(key);
    free.add(key);
  }
  return twice;
}
