/**
 * `node test/bench/hold-parts.bench.ts [--rounds N] [--turns N] [--interval MS] [--sentinel MS] [--ways QMP,process]
 * [--idle N] [--beside DIRECTORY]`: what the time from "another process starts to run" to "the held one is off its CPU" is
 * made of, with a histogram of each part, by both ways to pause a machine, and by the daemon of another checkout if one is
 * given. All take turns in one run. The scene and the counters are those of `hold-delay.bench.ts`; the daemon is the
 * product's, in a process that says when it does what (`marked-daemon.ts`). Writes `.cache/bench/hold-parts.json`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { execa } from 'execa';
import { requireKernel } from '../../kernels/cache.ts';
import { projectDirectory } from '../../kernels/paths.ts';
import { bootDebian, type LiveGuest } from '../live/guest.ts';
import { GuestCounter } from '../live/guest-counters.ts';
import { until } from '../live/until.ts';
import { cpuOf } from './cpu-of.ts';
import { percentile, record } from './harness.ts';
import { type HoldParts, holdParts, PARTS } from './hold-parts.ts';
import type { DaemonMark } from './marked-daemon.ts';
import { delaysOf, Runs } from './runs.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '40' },
    interval: { type: 'string', default: '500' },
    sentinel: { type: 'string', default: '5' },
    ways: { type: 'string', default: 'QMP,process' },
    turns: { type: 'string', default: '2' },
    idle: { type: 'string', default: '0' },
    beside: { type: 'string' },
  },
});
const INTERVAL_MS = Number(values.interval);
const LOOK_MS = 0.05;
const GAP_MS = 100;
const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** One of those that take turns. */
interface Side {
  readonly name: string;
  readonly way: string;
  /** Checkout that its daemon is of. */
  readonly root: string;
}

interface Turn {
  readonly side: string;
  readonly parts: HoldParts[];
  readonly cpu: number;
  readonly loads: readonly number[];
}

interface StagedGuests {
  readonly web: LiveGuest;
  readonly batch: LiveGuest;
  readonly idle: readonly LiveGuest[];
  readonly directory: string;
}

async function turn(
  { name, way, root }: Side,
  { web, batch, idle, directory }: StagedGuests,
  rounds: number,
): Promise<Turn> {
  const connect = [web, batch, ...idle].map((guest) =>
    way === 'QMP' ? guest.connection : `pid:${guest.process.pid}`,
  );
  const file = path.join(directory, 'domsched.toml');
  await writeFile(
    file,
    `guarantee = 0\ninterval = ${INTERVAL_MS / 1000}\nmaxHold = false\nsentinel = ${Number(values.sentinel) / 1000}\n` +
      `connect = ${JSON.stringify(connect)}\n[[policy]]\ntype = "idle-only"\nselect = [{ domain = "batch", comm = "backup" }]\n`,
  );
  const run = await mkdtemp('/dev/shm/domsched-parts-');
  const child = spawn(process.execPath, [path.join(root, 'test/bench/marked-daemon.ts'), file], {
    env: { ...process.env, XDG_DATA_HOME: directory, DOMSCHED_RUNTIME_DIR: run },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const marks: DaemonMark[] = [];
    createInterface({ input: child.stdout! }).on('line', (line) =>
      marks.push(JSON.parse(line) as DaemonMark),
    );
    await until(
      'the daemon has all',
      () => marks.filter(({ what }) => what === 'ready').length === connect.length,
    );
    const first = loadavg()[0]!;
    for (const pid of [child.pid!, web.process.pid!, batch.process.pid!])
      await execa('chrt', ['--rr', '--pid', '1', String(pid)]);
    const restMs = 2 * INTERVAL_MS + 500;
    const burstMs = 2 * INTERVAL_MS + 400;
    await web.run(
      `REST_MS=${restMs} BURST_MS=${burstMs} workload bursts service >/dev/null 2>&1 & echo $! >/run/service`,
    );
    await until('it holds', () => marks.some(({ what }) => what === 'done'));
    using service = GuestCounter.open(web, 'service');
    using backup = GuestCounter.open(batch, 'backup');
    const causes = new Runs(restMs / 2, service.read());
    const effects = new Runs(GAP_MS, backup.read());
    const nowMs = () => Number(process.hrtime.bigint()) / 1e6;
    const began = { ms: nowMs(), cpuMs: cpuOf(child.pid!) };
    for (let looks = 1; ; looks++) {
      causes.look(service.read(), nowMs());
      effects.look(backup.read(), nowMs());
      Atomics.wait(sleeper, 0, 0, LOOK_MS);
      if (looks % 100 > 0) continue;
      // The guests' consoles and the daemon's marks want to be read.
      await setImmediate();
      const { delays, late, unfit } = delaysOf(causes.list, effects.list, GAP_MS);
      if (delays.length >= rounds) break;
      if (late + unfit > 10 + 4 * rounds) throw new Error('it is seldom held: nothing to measure');
    }
    const cpu = (cpuOf(child.pid!) - began.cpuMs) / (nowMs() - began.ms);
    await sleep(500);
    await web.run('kill $(cat /run/service)');
    return {
      side: name,
      parts: holdParts(causes.list, effects.list, marks, GAP_MS),
      cpu,
      loads: [first, loadavg()[0]!],
    };
  } finally {
    const gone = once(child, 'exit');
    if (child.exitCode === null) {
      child.kill('SIGTERM');
      await gone;
    }
    await rm(run, { recursive: true, force: true });
  }
}

function histogram(samples: readonly number[]): string {
  const bounds = [0.5, 1, 2, 4, 8, 16, 32, 64, Infinity];
  const counts = bounds.map(
    (bound, i) => samples.filter((ms) => ms < bound && ms >= (bounds[i - 1] ?? -Infinity)).length,
  );
  const most = Math.max(...counts);
  return counts.map((count) => (count === 0 ? '·' : '▁▂▃▄▅▆▇█'[Math.ceil((8 * count) / most) - 1]!)).join('');
}

const directory = await mkdtemp(path.join(tmpdir(), 'domsched-parts-'));
try {
  await using web = await bootDebian({ name: 'web', extra: ['-name', 'guest=web,debug-threads=on'] });
  await using batch = await bootDebian({
    name: 'batch',
    programs: [{ kind: 'burner', name: 'backup' }],
    extra: ['-name', 'guest=batch,debug-threads=on'],
  });
  await execa(process.execPath, [
    path.join(projectDirectory, 'domsched.ts'),
    ...['extract', requireKernel('debian-6.1-cloud').vmlinux],
    ...['--out', path.join(directory, 'domsched', 'layouts'), '--quiet'],
  ]);
  await using others = new AsyncDisposableStack();
  const idle: LiveGuest[] = [];
  for (let i = 0; i < Number(values.idle); i++)
    idle.push(
      others.use(
        await bootDebian({
          name: `idle-${i}`,
          memory: 256,
          extra: ['-name', `guest=idle-${i},debug-threads=on`],
        }),
      ),
    );
  const sides = values.ways
    .split(',')
    .flatMap((way): Side[] => [
      ...(values.beside === undefined
        ? []
        : [{ name: `${way}, ${values.beside}`, way, root: values.beside }]),
      { name: way, way, root: projectDirectory },
    ]);
  const turns: Turn[] = [];
  const each = Math.ceil(Number(values.rounds) / Number(values.turns));
  for (let i = 0; i < Number(values.turns); i++)
    for (const side of i % 2 === 0 ? sides : sides.toReversed())
      turns.push(await turn(side, { web, batch, idle, directory }, each));
  for (const { name } of sides) {
    const own = turns.filter((one) => one.side === name);
    const parts = own.flatMap((one) => one.parts);
    const table = new Table({
      head: [`paused by ${name}: part, ms`, '50 %', '90 %', '99 %', '<.5 1 2 4 8 16 32 64 …'],
      colAligns: ['left', 'right', 'right', 'right', 'left'],
      style: { head: [], border: [], compact: true },
    });
    for (const what of PARTS) {
      const samples = parts.map((part) => part[what]);
      const cells = [0.5, 0.9, 0.99].map((part) => percentile(samples, part).toFixed(2));
      table.push([what, ...cells, histogram(samples)]);
    }
    console.log(table.toString());
    const cpu = own.reduce((sum, one) => sum + one.cpu, 0) / own.length;
    const loads = own.flatMap((one) => one.loads).map((load) => load.toFixed(1));
    console.log(
      `${parts.length} holds; the daemon took ${(100 * cpu).toFixed(1)} % of a CPU; load ${loads.join(', ')}; ${web.accelerator}\n`,
    );
  }
  await record('hold-parts', {
    accelerator: web.accelerator,
    interval: INTERVAL_MS,
    sentinel: values.sentinel,
    turns,
  });
} finally {
  await rm(directory, { recursive: true, force: true });
}
