/**
 * Runs inside dom0: the product's look at a domain, every so many ms from SIGUSR2 to SIGHUP, until SIGTERM.
 * `node look-in-dom0.mjs DOMAIN INTERVAL_MS FOLDER` writes where the domain's kernel has its run queue into
 * FOLDER/places.json when it is ready, and after each SIGHUP what it has seen into FOLDER/looks.json.
 */
import { renameSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import { Guest } from '../../../runtime/guest/guest.ts';
import { percpuVariable } from '../../../runtime/guest/percpu.ts';
import { connectAll } from '../../../runtime/hypervisor/connect.ts';
import { membersOf } from '../../../runtime/layout/members.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import { Ticker } from '../../../runtime/tick/ticker.ts';
import { openDomain } from '../../../runtime/watch/choose.ts';

/** What one window of looks came to. */
export interface LookedAt {
  readonly looks: number;
  /** Names of the ready, as the last look has them. */
  readonly seen: readonly string[];
}

/** Looks before the first window: code is compiled and pages are mapped in them. */
const WARM_UP = 30;

const [name, interval, folder] = process.argv.slice(2);
await using hosts = await connectAll(['xen:']);
await using domain = await openDomain(hosts, name!);
const guest = await Guest.attach(domain, await knownKernels());
const take = async (): Promise<string[]> => {
  const { runQueues, processes } = await guest.take({ limitMs: 60_000 });
  const ready = new Set(runQueues.flatMap(({ tasks }) => tasks.map(({ pid }) => pid)));
  return processes.filter(({ pid }) => ready.has(pid)).map(({ comm }) => comm);
};
for (let i = 0; i < WARM_UP; i++) await take();
put('places', placesOf(guest));

for (;;) {
  if ((await told('SIGUSR2', 'SIGTERM')) === 'SIGTERM') break;
  const stop = new AbortController();
  process.once('SIGHUP', () => stop.abort());
  let looked: LookedAt = { looks: 0, seen: [] };
  for await (const _missed of new Ticker(Number(interval)).ticks(stop.signal))
    looked = { looks: looked.looks + 1, seen: await take() };
  put('looks', looked);
}
guest.detach();

/** What a program needs that walks the run queue by itself: an address, and offsets. */
function placesOf({ kernel, layout, cpus }: Guest): string[] {
  const rq = membersOf(layout, 'rq', ['curr', 'cfs']);
  const { root } = membersOf(layout, 'cfs_rq', ['root'], rq.cfs.offset);
  const node = membersOf(layout, 'rb_node', ['rb_left', 'rb_right']);
  const entity = membersOf(layout, 'sched_entity', ['run_node']);
  const task = membersOf(layout, 'task_struct', ['se', 'pid', 'comm', 'static_prio']);
  return [
    `0x${percpuVariable(kernel, 'runqueues', cpus[0]!).toString(16)}`,
    ...[rq.curr, root].map(({ offset }) => String(offset)),
    String(task.se.offset + entity.run_node.offset),
    ...[node.rb_left, node.rb_right, task.pid, task.comm, task.static_prio].map(({ offset }) =>
      String(offset),
    ),
  ];
}

function put(what: string, value: unknown): void {
  writeFileSync(`${folder}/${what}.new`, JSON.stringify(value));
  renameSync(`${folder}/${what}.new`, `${folder}/${what}.json`);
}

function told(...signals: readonly NodeJS.Signals[]): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const awake = setInterval(() => undefined, 60_000);
    for (const signal of signals)
      process.once(signal, () => {
        clearInterval(awake);
        resolve(signal);
      });
  });
}
