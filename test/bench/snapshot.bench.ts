/**
 * `node test/bench/snapshot.bench.ts [--rounds N] [--live]`: what one look at a guest's run queues and processes
 * costs. On guests made in memory: growth from 10 to 10,000 tasks, and from 1 to 200 domains, with the memory of the
 * process. With `--live`, on a Debian guest with two vCPUs and 50 burners. Prints tables and writes
 * `.cache/bench/snapshot.json`. Exit code 0 even when a target is missed: a busy machine is no bug.
 */
import process from 'node:process';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { bootDebian } from '../live/guest.ts';
import { TestLayouts } from '../live/ps-layouts.ts';
import { CFS_KERNEL, knownKernel, SyntheticGuest, type SyntheticTask } from '../runtime/guest/synthetic.ts';
import { type BenchTarget, median, record, targetTable } from './harness.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '15' }, live: { type: 'boolean', default: false } },
});
const rounds = Number(values.rounds);
const KERNEL = CFS_KERNEL;
const known = [knownKernel(KERNEL)];
type Cost = ReturnType<typeof cost>;
const TASKS = [10, 100, 1000, 10_000];
const DOMAINS = [1, 10, 50, 200];
const TASKS_PER_DOMAIN = 50;

/** CPU time inside the fake hypervisor, in µs: its memory is a hash table, which costs more than reading it does. */
let inFake = 0;

/** CPU time, in µs. Of the process: Linux brings that of a single thread up to date at ticks only. */
function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

/**
 * Median over rounds of the CPU time for one call, in µs, and what of it is ours: without the fake hypervisor's part.
 */
function cost(run: () => unknown, loops: number): { all: number; ours: number } {
  const all: number[] = [];
  const ours: number[] = [];
  for (let round = -3; round < rounds; round++) {
    inFake = 0;
    const before = cpuTime();
    for (let i = 0; i < loops; i++) run();
    const used = cpuTime() - before;
    if (round < 0) continue;
    all.push(used / loops);
    ours.push((used - inFake) / loops);
  }
  return { all: median(all), ours: median(ours) };
}

async function make(count: number, name: string): Promise<SyntheticGuest> {
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL, tasks: runnable(count), name });
  const { frames } = synthetic.domain;
  const read = frames.read.bind(frames);
  frames.read = (batch) => {
    const start = cpuTime();
    const failed = read(batch);
    inFake += cpuTime() - start;
    return failed;
  };
  return synthetic;
}

/** `count` runnable tasks on two CPUs. */
function runnable(count: number): SyntheticTask[] {
  const tasks: SyntheticTask[] = [{ pid: 1, comm: 'init', cpu: 0, state: 'sleeping' }];
  for (let i = 0; i < count; i++) {
    tasks.push({ pid: 100 + i, comm: `task-${i}`, cpu: i % 2, state: i < 2 ? 'running' : 'ready', ppid: 1 });
  }
  return tasks;
}

function print(head: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  const table = new Table({
    head: [...head],
    colAligns: head.map(() => 'right'),
    style: { head: [], border: [] },
  });
  for (const row of rows)
    table.push(row.map((cell) => (typeof cell === 'number' ? Number(cell.toPrecision(3)) : cell)));
  console.log(table.toString());
}

const targets: BenchTarget[] = [];
const byTasks: { tasks: number; watch: Cost; snapshot: Cost }[] = [];
for (const count of TASKS) {
  const guest = await Guest.attach((await make(count, `with-${count}`)).domain, known);
  const loops = Math.max(1, Math.round(5_000 / count));
  byTasks.push({
    tasks: count,
    watch: cost(() => guest.watch(), loops),
    snapshot: cost(() => guest.snapshot(), loops),
  });
}
print(
  [
    'tasks, all runnable',
    'run queues, µs',
    'ours',
    'ours per task',
    'processes too, µs',
    'ours',
    'ours per task',
  ],
  byTasks.map(({ tasks, watch, snapshot }) => [
    ...[tasks, watch.all, watch.ours, watch.ours / tasks],
    ...[snapshot.all, snapshot.ours, snapshot.ours / tasks],
  ]),
);

const byDomains: { domains: number; tick: Cost }[] = [];
const images: SyntheticGuest[] = [];
for (let i = 0; i < DOMAINS.at(-1)!; i++) {
  images.push(await make(TASKS_PER_DOMAIN, `domain-${i}`));
}
const before = await memory();
const guests: Guest[] = [];
for (const count of DOMAINS) {
  while (guests.length < count) {
    guests.push(await Guest.attach(images[guests.length]!.domain, known));
  }
  const tick = cost(
    () => {
      for (const guest of guests) guest.watch();
    },
    Math.max(1, Math.round(200 / count)),
  );
  byDomains.push({ domains: count, tick });
}
const memoryPerDomain = ((await memory()) - before) / guests.length;
print(
  [`domains with ${TASKS_PER_DOMAIN} runnable tasks`, 'one tick, µs', 'ours', 'ours per domain'],
  byDomains.map(({ domains, tick }) => [domains, tick.all, tick.ours, tick.ours / domains]),
);
console.log(
  `memory for each of ${guests.length} domains watched: ${(memoryPerDomain / 1024).toFixed(0)} KiB`,
);

// Linear, but for caches: what 10 tasks need stays in them from look to look, what 10,000 need does not.
const CACHES = 4;
const perTask = (row: (typeof byTasks)[number]) => row.watch.ours / row.tasks;
const perDomain = (row: (typeof byDomains)[number]) => row.tick.ours / row.domains;
targets.push(
  {
    claim: 'for each task: of 10,000 against of 100, our part',
    found: perTask(byTasks[3]!) / perTask(byTasks[1]!),
    limit: CACHES,
    unit: 'times',
  },
  {
    claim: 'for each domain: of 200 against of one, our part',
    found: perDomain(byDomains[3]!) / perDomain(byDomains[0]!),
    limit: CACHES,
    unit: 'times',
  },
);

let live: Record<string, number> | undefined;
if (values.live) {
  const programs = Array.from({ length: 50 }, (_, i) => ({ kind: 'burner', name: `burner-${i}` }) as const);
  await using machine = await bootDebian({ kernel: 'debian-6.1-cloud', programs });
  await using layouts = await TestLayouts.of(machine.kernel.vmlinux);
  await using domain = await QemuDomain.attach(machine.sockets, machine.connection);
  const guest = await Guest.attach(domain, layouts.known);
  const unpaused = cost(() => guest.watch(), 200).all;
  await using _pause = await domain.pause.acquire();
  const paused = cost(() => guest.watch(), 200).all;
  const snapshot = cost(() => guest.snapshot(), 50).all;
  const tasks = guest.queues.count;
  live = { tasks, unpaused, paused, snapshot };
  print(
    ['runnable tasks, live guest', 'running, µs', 'paused, µs', 'all processes, µs'],
    [[tasks, unpaused, paused, snapshot]],
  );
  for (const limit of [200, 50]) {
    targets.push({
      claim: `run queues of 2 vCPUs with ${tasks} runnable tasks, running guest`,
      found: unpaused,
      limit,
      unit: 'µs of CPU',
    });
  }
}
console.log(targetTable(targets));
await record('snapshot', { byTasks, byDomains, memoryPerDomain, live, targets });

/** Bytes in use, after what can be collected is. */
async function memory(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
