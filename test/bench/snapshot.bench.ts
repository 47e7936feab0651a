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
import { median, record, type Target, targetTable } from './harness.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '15' }, live: { type: 'boolean', default: false } },
});
const rounds = Number(values.rounds);
const KERNEL = CFS_KERNEL;
const TASKS = [10, 100, 1000, 10_000];
const DOMAINS = [1, 10, 50, 200];
const TASKS_PER_DOMAIN = 50;

/** Median over rounds of our own CPU time for one call, in µs. */
function cost(run: () => unknown, loops: number): number {
  const samples: number[] = [];
  for (let round = -3; round < rounds; round++) {
    const before = process.cpuUsage();
    for (let i = 0; i < loops; i++) run();
    const { user, system } = process.cpuUsage(before);
    if (round >= 0) samples.push((user + system) / loops);
  }
  return median(samples);
}

/** `count` runnable tasks on two CPUs. */
function runnable(count: number): SyntheticTask[] {
  const tasks: SyntheticTask[] = [{ pid: 1, comm: 'init', cpu: 0, state: 'sleeping' }];
  for (let i = 0; i < count; i++) {
    tasks.push({ pid: 100 + i, comm: `task-${i}`, cpu: i % 2, state: i < 2 ? 'running' : 'ready', ppid: 1 });
  }
  return tasks;
}

async function attach(count: number, name: string): Promise<Guest> {
  const synthetic = await SyntheticGuest.make({ kernel: KERNEL, tasks: runnable(count), name });
  return Guest.attach(synthetic.domain, [knownKernel(KERNEL)]);
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

const targets: Target[] = [];
const byTasks: { tasks: number; watch: number; snapshot: number }[] = [];
for (const count of TASKS) {
  const guest = await attach(count, `with-${count}`);
  const loops = Math.max(1, Math.round(5_000 / count));
  byTasks.push({
    tasks: count,
    watch: cost(() => guest.watch(), loops),
    snapshot: cost(() => guest.snapshot(), loops),
  });
}
print(
  ['tasks, all runnable', 'run queues, µs', 'per task', 'processes too, µs', 'per task'],
  byTasks.map(({ tasks, watch, snapshot }) => [tasks, watch, watch / tasks, snapshot, snapshot / tasks]),
);

const byDomains: { domains: number; tick: number; heapPerDomain: number }[] = [];
const guests: Guest[] = [];
const before = memory();
for (const count of DOMAINS) {
  while (guests.length < count) guests.push(await attach(TASKS_PER_DOMAIN, `domain-${guests.length}`));
  const tick = cost(
    () => {
      for (const guest of guests) guest.watch();
    },
    Math.max(1, Math.round(200 / count)),
  );
  byDomains.push({ domains: count, tick, heapPerDomain: (memory() - before) / count });
}
print(
  [
    `domains with ${TASKS_PER_DOMAIN} runnable tasks`,
    'one tick, µs',
    'per domain',
    'memory per domain, KiB, image included',
  ],
  byDomains.map(({ domains, tick, heapPerDomain }) => [domains, tick, tick / domains, heapPerDomain / 1024]),
);

const growth = (few: number, many: number) => many / few;
const first = byTasks[1]!;
const last = byTasks[3]!;
targets.push({
  claim: '10,000 tasks against 100',
  found: growth(first.watch, last.watch),
  limit: 150,
  unit: 'times',
});
const one = byDomains[0]!;
const all = byDomains[3]!;
targets.push({
  claim: '200 domains against one',
  found: growth(one.tick, all.tick),
  limit: 300,
  unit: 'times',
});

let live: Record<string, number> | undefined;
if (values.live) {
  const programs = Array.from({ length: 50 }, (_, i) => ({ kind: 'burner', name: `burner-${i}` }) as const);
  await using machine = await bootDebian({ kernel: 'debian-6.1-cloud', programs });
  await using layouts = await TestLayouts.of(machine.kernel.vmlinux);
  await using domain = await QemuDomain.attach(machine.sockets, machine.connection);
  const guest = await Guest.attach(domain, layouts.known);
  const unpaused = cost(() => guest.watch(), 200);
  await using _pause = await domain.pause.acquire();
  const paused = cost(() => guest.watch(), 200);
  const snapshot = cost(() => guest.snapshot(), 50);
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
await record('snapshot', { byTasks, byDomains, live, targets });

function memory(): number {
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
