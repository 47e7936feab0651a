/** `domsched run` over a Debian guest and an O(1) guest: policies across both, signals, and an end at any moment. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { TickReport } from '../../runtime/daemon/report.ts';
import { DaemonBench, type LogLine, until } from './daemon.ts';

/** As many as asked for; else what fits into a while, at most so many. */
const KILLS = process.env.DOMSCHED_KILLS === undefined ? undefined : Number(process.env.DOMSCHED_KILLS);
const MOST_KILLS = 300;
const BUDGET_MS = 240_000;

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
  using client = await bench.control();
  const report = await new Promise<TickReport>((resolve) => void client.watch(resolve));
  const shown = report.domains.flatMap(({ processes }) => processes).find(({ comm }) => comm === 'backup');
  t.like(shown, { state: 'held', held: { policy: 'night' } });
  const second = await bench.domsched('run', '-c', bench.configFile).catch((error) => error);
  t.is(second.exitCode, 3, 'one daemon at a time');

  t.is(await bench.end('SIGTERM'), 0);
  await bench.goesOn('backup', 'pi1');
  t.regex((await bench.domsched('release', '--all')).stdout, /nothing is held/);
  bench.checkConsoles();
});

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

/** Policies of a user: everything is held; or held and let go all the time. */
const HOLD = `export default () => ({ subjects }) =>
  ({ actions: [...subjects].map((process) => ({ type: 'hold', process, reason: 'test' })) });`;
const TOGGLE = `export default () => ({ subjects }, memory = 0) => ({
  memory: memory + 1,
  actions: Math.floor(memory / 3) % 2 === 1 ? [] :
    [...subjects].map((process) => ({ type: 'hold', process, reason: 'test' })),
});`;

test.serial(
  'killed at random moments, again and again: nobody is left held, nobody is released twice',
  async (t) => {
    t.timeout((KILLS ?? MOST_KILLS) * 60_000 + 600_000);
    const programs = [
      { kind: 'burner', name: 'burner' },
      { kind: 'pipe', name: 'pipe' },
      { kind: 'threads', name: 'threads' },
    ] as const;
    await using bench = await DaemonBench.boot({ programs }, 'report=50 run=pi1,pi2,pi3');
    const names = ['burner', 'pipe', 'threads', 'pi1', 'pi2', 'pi3'];
    await bench.goesOn(...names);
    await writeFile(path.join(bench.directory, 'toggle.mjs'), TOGGLE);
    await bench.configure(
      `[[policy]]\ntype = "module"\nmodule = "toggle.mjs"\nselect = [{ comm = ${JSON.stringify(names)} }]`,
      'interval = 0.02',
    );
    const began = performance.now();
    let kills = 0;
    const isEnough = () =>
      KILLS === undefined ? kills >= MOST_KILLS || performance.now() - began > BUDGET_MS : kills >= KILLS;
    for (; !isEnough(); kills++) {
      const from = bench.logged();
      const child = bench.start();
      // Busy, or anywhere on the way there.
      if (Math.random() < 0.9) {
        const busy = ({ msg }: LogLine) => msg === 'holding' || msg === 'released';
        await until(
          () => (child.exitCode !== null ? true : bench.log(from).some(busy) || undefined),
          300_000,
          5,
        );
        t.is(child.exitCode, null, 'it did not end by itself');
        await sleep(300 * Math.random());
      } else await sleep(600 * Math.random());
      await bench.end('SIGKILL');
    }
    const log = bench.log();
    const count = (is: (line: LogLine) => boolean) => log.filter(is).length;
    t.log(`${kills} kills, ${Math.round((performance.now() - began) / kills)} ms each`);
    t.log(
      `${count(({ msg }) => msg === 'taken over')} holds taken over, ` +
        `${count(({ recovery }) => recovery === 'resumed')} pauses ended, ` +
        `${count(({ recovery }) => recovery === 'undone')} half-written edits undone`,
    );

    // With no daemon: one command lets everything go, and there is nothing for a second one to do.
    await bench.domsched('release', '--all', '--timeout', '60');
    t.regex((await bench.domsched('release', '--all')).stdout, /nothing is held/);
    await bench.goesOn(...names);
    t.deepEqual(releasedTwice(log), []);
    t.deepEqual(
      log.filter(({ level }) => level >= 50),
      [],
    );
    bench.checkConsoles();
  },
);

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
