/**
 * `node test/bench/slow-down.bench.ts [--pairs N] [--window MS]`: what the daemon costs a guest. A guest of one vCPU does
 * nothing but compute, or nothing but system calls and context switches, and counts it in a page that the host reads.
 * Short windows with a daemon that goes on and one that stands still (SIGSTOP: no look, no edit, no CPU) take turns;
 * each is compared with its neighbour, and neighbours in which it stood still both times with one another: what those
 * differ by is what this measurement cannot see.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { requireKernel } from '../../kernels/cache.ts';
import { DaemonProcess } from '../live/daemon-process.ts';
import { bootDebian, type LiveGuest } from '../live/guest.ts';
import { GuestCounter } from '../live/guest-counters.ts';
import { vcpuThread, type Window, watch } from './guest-window.ts';
import { record } from './harness.ts';
import { type Estimate, estimate, type Pair, pairsOf, turns } from './pairs.ts';

const { values } = parseArgs({
  options: { pairs: { type: 'string', default: '30' }, window: { type: 'string', default: '700' } },
});
const PAIRS = Number(values.pairs);
const WINDOW_MS = Number(values.window);
/** From a daemon's stop or start to the window: its look at once, for all those that it missed, is over. */
const SETTLE_MS = 100;
const HALT_ATTEMPTS = 100;
/** Until a daemon that has attached is done with compiling itself. */
const WARM_MS = 1_000;
const WORK = ['computing', 'switching'] as const;
const WAYS = [
  { does: 'looks', intervalMs: 500 },
  { does: 'looks', intervalMs: 50 },
  { does: 'edits', intervalMs: 500 },
  { does: 'edits', intervalMs: 50 },
] as const;

/** Holds a process that only sleeps at one look, and lets it go at the next. */
const TOGGLE = `export default () => ({ subjects }, memory = 0) => ({
  memory: memory + 1,
  actions: memory % 2 === 1 ? [] :
    [...subjects].map((process) => ({ type: 'hold', process, reason: 'bench' })),
});`;

/** Stops the daemon, but not while it has the guest paused. @throws Error when the guest stands still nevertheless */
async function halt(daemon: DaemonProcess, counter: GuestCounter): Promise<void> {
  for (let attempt = 1; attempt <= HALT_ATTEMPTS; attempt++) {
    daemon.signal('SIGSTOP');
    const before = counter.read();
    await sleep(SETTLE_MS);
    if (counter.read() !== before) return;
    daemon.signal('SIGCONT');
    await sleep(Math.random() * SETTLE_MS);
  }
  throw new Error(`${counter.name} stands still`);
}

interface MeasuredWindows {
  readonly windows: readonly Window[];
  readonly editsPerSecond: number;
}

async function measure(
  guest: LiveGuest,
  daemon: DaemonProcess,
  counter: GuestCounter,
  { does, intervalMs }: (typeof WAYS)[number],
): Promise<MeasuredWindows> {
  const begun = daemon.logged();
  await daemon.configure(
    `[[policy]]\ntype = "module"\nmodule = "toggle.mjs"\nselect = [{ comm = "${does === 'edits' ? 'victim' : 'nobody'}" }]`,
    `interval = ${intervalMs / 1000}\nmaxHold = false`,
  );
  daemon.start();
  await daemon.logs(({ msg }) => msg === (does === 'edits' ? 'released' : 'attached'), begun);
  await sleep(WARM_MS);
  const thread = await vcpuThread(guest);
  const windows: Window[] = [];
  let edits = 0;
  for (const goesOn of turns(PAIRS)) {
    if (goesOn) {
      daemon.signal('SIGCONT');
      await sleep(SETTLE_MS);
    } else await halt(daemon, counter);
    const from = daemon.logged();
    windows.push(await watch(counter, thread, WINDOW_MS));
    edits += daemon.log(from).filter(({ msg }) => msg === 'holding' || msg === 'released').length;
  }
  daemon.signal('SIGCONT');
  await daemon.end('SIGTERM');
  return { windows, editsPerSecond: (edits * 1000) / (PAIRS * WINDOW_MS) };
}

const ratio = ([without, beside]: Pair) => 100 * (beside / without - 1);
const difference = ([without, beside]: Pair) => 100 * (beside - without);
/** What is compared, and how: in percent of what it is without a daemon, or of the time. */
const FIGURES = [
  { of: 'byClock', head: 'work, host s', change: ratio },
  { of: 'byCpu', head: 'work, vCPU s', change: ratio },
  { of: 'stood', head: 'stands still', change: difference },
  { of: 'waited', head: 'waits', change: difference },
] as const;

const figures = (changes: (figure: (typeof FIGURES)[number]) => readonly number[]) =>
  Object.fromEntries(FIGURES.map((figure) => [figure.of, estimate(changes(figure))]));

const directory = await mkdtemp(path.join(tmpdir(), 'domsched-slow-down-'));
try {
  await using guest = await bootDebian({
    name: 'web',
    cpus: 1,
    programs: [
      { kind: 'burner', name: 'computing' },
      { kind: 'pipe', name: 'switching' },
    ],
  });
  await using daemon = new DaemonProcess(directory, [guest.connection]);
  await daemon.extract(requireKernel('debian-6.1-cloud').vmlinux);
  await writeFile(path.join(directory, 'toggle.mjs'), TOGGLE);
  await guest.run('REST_MS=100000000 workload bursts victim >/dev/null 2>&1 &');
  const results = [];
  for (const work of WORK) {
    await guest.run('killall -STOP computing switching echo');
    await guest.run(`killall -CONT ${work === 'computing' ? work : 'switching echo'}`);
    using counter = GuestCounter.open(guest, work);
    const still = new Map<string, Pair[]>(FIGURES.map(({ of }) => [of, []]));
    for (const way of WAYS) {
      const { windows, editsPerSecond } = await measure(guest, daemon, counter, way);
      const found = figures(({ of, change }) => {
        const { different, same } = pairsOf(windows.map((window) => window[of]));
        still.get(of)!.push(...same);
        return different.map(change);
      });
      results.push({
        work,
        way: `${way.does} every ${way.intervalMs} ms`,
        editsPerSecond,
        figures: found,
        windows,
      });
    }
    const none = figures(({ of, change }) => still.get(of)!.map(change));
    results.push({ work, way: 'none, and none', editsPerSecond: 0, figures: none });
  }
  guest.checkConsole();
  const table = new Table({
    head: ['work', 'daemon', 'edits per s', ...FIGURES.map(({ head }) => `${head}, %`)],
    style: { head: [], border: [] },
  });
  const shown = ({ value, from, to }: Estimate) => {
    const [middle, low, high] = [value, from, to].map((percent) => percent.toFixed(2));
    return `${middle} (${low} to ${high})`;
  };
  for (const { work, way, editsPerSecond, figures } of results)
    table.push([work, way, editsPerSecond.toFixed(1), ...FIGURES.map(({ of }) => shown(figures[of]!))]);
  console.log(
    `more than without a daemon, ${PAIRS} pairs of ${WINDOW_MS} ms: median (95 %); ${guest.accelerator}`,
  );
  console.log(table.toString());
  await record('slow-down', { accelerator: guest.accelerator, pairs: PAIRS, windowMs: WINDOW_MS, results });
} finally {
  await rm(directory, { recursive: true, force: true });
}
