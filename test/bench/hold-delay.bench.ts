/**
 * `node test/bench/hold-delay.bench.ts [--rounds N] [--intervals MS,MS/MS] [--idle N]`: how long after another process
 * starts to run a process that `idle-only` holds is off its CPU, against the daemon's interval and, behind a stroke, that
 * of its sentinel; beside so many guests more in which nothing runs. And what CPU time the daemon takes for it.
 *
 * Two live guests: in one a backup runs all the time that it is let, in the other a service rests and runs in turn, at
 * random. Both count what they do in a page of their guest's memory, and the host reads both counters over and over:
 * two instants in one clock, the host's, and no guest is asked or paused for it. From the first count of the service
 * after a rest, to the last count of the backup before it stands still.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { execa } from 'execa';
import { requireKernel } from '../../kernels/cache.ts';
import { DaemonProcess } from '../live/daemon-process.ts';
import { bootDebian, type LiveGuest } from '../live/guest.ts';
import { GuestCounter } from '../live/guest-counters.ts';
import { cpuOf } from './cpu-of.ts';
import { percentile, record } from './harness.ts';
import { type Delays, delaysOf, Runs } from './runs.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '50' },
    intervals: { type: 'string', default: '500,500/5,500/3,100,50' },
    idle: { type: 'string', default: '0' },
  },
});
const ROUNDS = Number(values.rounds);
const INTERVALS = values.intervals.split(',').map((each) => each.split('/').map(Number) as [number, number?]);
/** How long the host sleeps between two looks at the counters; the kernel makes it some 0.06 ms longer. */
const LOOK_MS = 0.05;
/** A process that has not counted for so long, in ms, does not run: no scheduler of ours leaves such a gap. */
const GAP_MS = 100;
const sleeper = new Int32Array(new SharedArrayBuffer(4));

interface MeasuredDelays extends Delays {
  readonly intervalMs: number;
  readonly sentinelMs: number | undefined;
  /** CPU time of the daemon, as part of a CPU. */
  readonly cpu: number;
  readonly steps: readonly number[];
}

async function measure(
  web: LiveGuest,
  batch: LiveGuest,
  daemon: DaemonProcess,
  intervalMs: number,
  sentinelMs: number | undefined,
): Promise<MeasuredDelays> {
  // Time for two ticks and an edit, and as much to let the backup go on.
  const restMs = 2 * intervalMs + 500;
  const burstMs = 2 * intervalMs + 400;
  const from = daemon.logged();
  await daemon.configure(
    '[[policy]]\ntype = "idle-only"\nselect = [{ domain = "batch", comm = "backup" }]',
    `interval = ${intervalMs / 1000}\nmaxHold = false\nsentinel = ${sentinelMs === undefined ? false : sentinelMs / 1000}`,
  );
  daemon.start();
  await daemon.logs(({ msg }) => msg === 'attached', from);
  for (const pid of [daemon.pid!, web.process.pid!, batch.process.pid!]) await atOnce(pid);
  await web.run(
    `REST_MS=${restMs} BURST_MS=${burstMs} workload bursts service >/dev/null 2>&1 & echo $! >/run/service`,
  );
  await daemon.logs(({ msg }) => msg === 'holding', from);
  using service = GuestCounter.open(web, 'service');
  using backup = GuestCounter.open(batch, 'backup');
  const causes = new Runs(restMs / 2, service.read());
  const effects = new Runs(GAP_MS, backup.read());
  const began = { atMs: performance.now(), cpuMs: cpuOf(daemon.pid!) };
  let found = delaysOf([], [], GAP_MS);
  for (let looks = 1; found.delays.length < ROUNDS; looks++) {
    causes.look(service.read(), performance.now());
    effects.look(backup.read(), performance.now());
    Atomics.wait(sleeper, 0, 0, LOOK_MS);
    if (looks % 100 > 0) continue;
    // The guests' consoles want to be read.
    await setImmediate();
    found = delaysOf(causes.list, effects.list, GAP_MS);
    if (found.late + found.unfit > 10 + ROUNDS) throw new Error('it is seldom held: nothing to measure');
  }
  if (!service.isThere || !backup.isThere) throw new Error('a counter has moved: measure again');
  const cpu = (cpuOf(daemon.pid!) - began.cpuMs) / (performance.now() - began.atMs);
  await daemon.end('SIGTERM');
  await web.run('kill $(cat /run/service)');
  return { intervalMs, sentinelMs, cpu, ...found, steps: effects.steps };
}

/**
 * Lets the first thread of a process, of a machine that which takes orders, run as soon as it can, as if one of the host's
 * CPUs were free for it: the loads of the guests take all that this host has.
 */
async function atOnce(pid: number): Promise<void> {
  await execa('chrt', ['--rr', '--pid', '1', String(pid)]);
}

const directory = await mkdtemp(path.join(tmpdir(), 'domsched-delay-'));
try {
  await using web = await bootDebian({ name: 'web' });
  await using batch = await bootDebian({ name: 'batch', programs: [{ kind: 'burner', name: 'backup' }] });
  await using others = new AsyncDisposableStack();
  const idle: LiveGuest[] = [];
  for (let i = 0; i < Number(values.idle); i++)
    idle.push(others.use(await bootDebian({ name: `idle-${i}`, memory: 256 })));
  const guests = [web, batch, ...idle];
  await using daemon = new DaemonProcess(
    directory,
    guests.map(({ connection }) => connection),
  );
  await daemon.extract(requireKernel('debian-6.1-cloud').vmlinux);
  const table = new Table({
    head: [
      ...['interval, ms', 'sentinel, ms', 'rounds', '50 %', '90 %', '99 %', 'longest', 'late'],
      ...['counts apart, 50 % / 99 %', 'CPU, %'],
    ],
    colAligns: Array.from({ length: 10 }, () => 'right' as const),
    style: { head: [], border: [] },
  });
  const results = [];
  for (const [intervalMs, sentinelMs] of INTERVALS) {
    const { delays, late, unfit, steps, cpu } = await measure(web, batch, daemon, intervalMs, sentinelMs);
    const at = (part: number, of: readonly number[] = delays) => percentile(of, part);
    const exact = [at(0.5, steps), at(0.99, steps)] as const;
    const cells = [at(0.5), at(0.9), at(0.99), Math.max(...delays)].map((ms) => ms.toFixed(1));
    const apart = exact.map((ms) => ms.toFixed(2)).join(' / ');
    table.push([intervalMs, sentinelMs ?? '–', delays.length, ...cells, late, apart, (100 * cpu).toFixed(1)]);
    console.log(
      `every ${intervalMs} ms, sentinel ${sentinelMs ?? 'off'}: half of ${delays.length} within ${cells[0]} ms`,
    );
    results.push({ intervalMs, sentinelMs, cpu, delays, late, unfit, exact });
  }
  web.checkConsole();
  batch.checkConsole();
  console.log(
    `from "another process starts to run" to "the held one is off its CPU", ms; ${web.accelerator}`,
  );
  console.log(table.toString());
  await record('hold-delay', { accelerator: web.accelerator, results });
} finally {
  await rm(directory, { recursive: true, force: true });
}
