/**
 * `node test/bench/slow-down.bench.ts [--rounds N] [--run MS]`: what the daemon costs a guest. A fixed amount of work in a live
 * guest, once of computing alone and once of nothing but system calls and context switches, with no daemon, with one
 * that watches, and with one that edits the guest at every interval. Each round has every way once, in random order;
 * a ratio is to the same round's run without a daemon, on the host's clock: the guest's stands still in a pause.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { requireKernel } from '../../kernels/cache.ts';
import { DaemonProcess, until } from '../live/daemon-process.ts';
import { bootDebian, type LiveGuest } from '../live/guest.ts';
import { median, percentile, record } from './harness.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '9' }, run: { type: 'string', default: '2000' } },
});
const ROUNDS = Number(values.rounds);
/** How long a run without a daemon is to take. */
const RUN_MS = Number(values.run);
const KINDS = ['burner', 'pipe'] as const;
type Kind = (typeof KINDS)[number];

/** A daemon to run beside the work; undefined for none. */
interface Way {
  readonly name: string;
  readonly daemon?: { readonly intervalMs: number; readonly edits: boolean };
}

const WAYS: readonly Way[] = [
  { name: 'no daemon' },
  { name: 'watching every 500 ms', daemon: { intervalMs: 500, edits: false } },
  { name: 'watching every 50 ms', daemon: { intervalMs: 50, edits: false } },
  { name: 'an edit every 500 ms', daemon: { intervalMs: 500, edits: true } },
  { name: 'an edit every 50 ms', daemon: { intervalMs: 50, edits: true } },
];

/** Holds a process that has nothing to do with the work at one tick, and lets it go at the next. */
const TOGGLE = `export default () => ({ subjects }, memory = 0) => ({
  memory: memory + 1,
  actions: memory % 2 === 1 ? [] :
    [...subjects].map((process) => ({ type: 'hold', process, reason: 'bench' })),
});`;

/** @returns how long the work took, in ms of the host */
async function timed(guest: LiveGuest, kind: Kind, rounds: number): Promise<number> {
  const begun = performance.now();
  await guest.run(`workload work ${kind} ${rounds}`);
  return performance.now() - begun;
}

/** Rounds of the work that take {@link RUN_MS}. */
async function calibrate(guest: LiveGuest, kind: Kind): Promise<number> {
  for (let rounds = 1_000; ; rounds *= 4) {
    const ms = await timed(guest, kind, rounds);
    if (ms > RUN_MS / 4) return Math.round((rounds * RUN_MS) / ms);
  }
}

interface Sample {
  readonly ms: Record<Kind, number>;
  /** Holds and releases meanwhile. */
  readonly edits: number;
}

async function run(
  guest: LiveGuest,
  daemon: DaemonProcess,
  way: Way,
  rounds: Record<Kind, number>,
): Promise<Sample> {
  const edited = () => daemon.log(from).filter(({ msg }) => msg === 'holding' || msg === 'released').length;
  const from = daemon.logged();
  if (way.daemon !== undefined) {
    const { intervalMs, edits } = way.daemon;
    const select = edits ? 'victim' : 'nobody';
    await daemon.configure(
      `[[policy]]\ntype = "module"\nmodule = "toggle.mjs"\nselect = [{ comm = "${select}" }]`,
      `interval = ${intervalMs / 1000}\nmaxHold = false`,
    );
    daemon.start();
    await daemon.logs(({ msg }) => msg === (edits ? 'released' : 'attached'), from);
    using client = await daemon.control();
    const ticks = async () => (await client.request<{ ticks: number }>('status')).ticks;
    const first = await ticks();
    await until(async () => ((await ticks()) > first + 1 ? true : undefined), 300_000, 20);
  }
  const before = edited();
  const ms = { burner: 0, pipe: 0 };
  for (const kind of KINDS) ms[kind] = await timed(guest, kind, rounds[kind]);
  const edits = edited() - before;
  if (way.daemon !== undefined) await daemon.end('SIGTERM');
  return { ms, edits };
}

function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map((value) => ({ value, at: Math.random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value);
}

const directory = await mkdtemp(path.join(tmpdir(), 'domsched-slow-down-'));
try {
  await using guest = await bootDebian({ name: 'web', programs: [{ kind: 'sleeper', name: 'victim' }] });
  await using daemon = new DaemonProcess(directory, [guest.connection]);
  await daemon.extract(requireKernel('debian-6.1-cloud').vmlinux);
  await writeFile(path.join(directory, 'toggle.mjs'), TOGGLE);
  const rounds = { burner: await calibrate(guest, 'burner'), pipe: await calibrate(guest, 'pipe') };
  const samples = new Map<string, Sample[]>(WAYS.map(({ name }) => [name, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const way of shuffled(WAYS)) samples.get(way.name)!.push(await run(guest, daemon, way, rounds));
  }
  guest.checkConsole();
  const none = samples.get(WAYS[0]!.name)!;
  const results = WAYS.slice(1).map(({ name }) => {
    const own = samples.get(name)!;
    const ratios = (kind: Kind) => own.map(({ ms }, i) => ms[kind] / none[i]!.ms[kind]);
    const perSecond = own.map(({ ms, edits }) => (1000 * edits) / (ms.burner + ms.pipe));
    return { name, burner: ratios('burner'), pipe: ratios('pipe'), editsPerSecond: median(perSecond) };
  });
  const table = new Table({
    head: ['daemon', 'edits per s', 'computing', 'quarter to three quarters', 'switching', 'the same'],
    style: { head: [], border: [] },
  });
  const shown = (ratios: readonly number[]) => [
    `${median(ratios).toFixed(3)}`,
    `${percentile(ratios, 0.25).toFixed(3)} to ${percentile(ratios, 0.75).toFixed(3)}`,
  ];
  for (const { name, burner, pipe, editsPerSecond } of results) {
    table.push([name, editsPerSecond.toFixed(1), ...shown(burner), ...shown(pipe)]);
  }
  const took = KINDS.map((kind) => `${kind} ${median(none.map(({ ms }) => ms[kind])).toFixed(0)} ms`).join(
    ', ',
  );
  console.log(
    `time of the work in ${ROUNDS} pairs, in that without a daemon (${took}); ${guest.accelerator}`,
  );
  console.log(table.toString());
  await record('slow-down', { accelerator: guest.accelerator, rounds, none, results });
} finally {
  await rm(directory, { recursive: true, force: true });
}
