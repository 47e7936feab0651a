import { readFileSync } from 'node:fs';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LiveGuest } from '../live/guest.ts';
import type { GuestCounter } from '../live/guest-counters.ts';

/** What a guest of one vCPU did in a stretch of the host's time. */
export interface Window {
  /** Of the work, per second of the host. */
  readonly byClock: number;
  /** Of the work, per second in which the vCPU ran. */
  readonly byCpu: number;
  /** Part of the time in which the vCPU was ready to run and had no CPU of the host. */
  readonly waited: number;
  /** Part of the time in which it neither ran nor waited: its domain was paused, or waited for QEMU. */
  readonly stood: number;
}

/** What a thread of the host has had of its CPUs at one instant. */
export interface ThreadInstant {
  readonly ns: bigint;
  readonly ranNs: bigint;
  readonly waitedNs: bigint;
}

/** The thread of the host that runs a guest's only vCPU. @throws Error when it has more */
export async function vcpuThread(guest: LiveGuest): Promise<string> {
  const monitor = await guest.monitor();
  const cpus = (await monitor.execute('query-cpus-fast')) as { 'thread-id': number }[];
  if (cpus.length !== 1) throw new Error(`${guest.name} has ${cpus.length} vCPUs`);
  return `/proc/${guest.process.pid}/task/${cpus[0]!['thread-id']}`;
}

/** Longer than the tick of any host. */
const TICK_LIMIT_MS = 20;

export function instantOf(thread: string): ThreadInstant {
  // Documentation/scheduler/sched-stats.rst: ns on a CPU, ns of waiting for one. The kernel brings a running thread's up
  // to date at its clock tick, so that tick is the instant to look at.
  const times = () => readFileSync(`${thread}/schedstat`, 'utf8');
  const end = performance.now() + TICK_LIMIT_MS;
  const before = times();
  let now = times();
  while (now === before && performance.now() < end) now = times();
  const [ran, waited] = now.split(' ');
  const ns = process.hrtime.bigint();
  return { ns, ranNs: BigInt(ran!), waitedNs: BigInt(waited!) };
}

/** Watches a guest from outside for some time. @throws Error when its work stands still */
export async function watch(counter: GuestCounter, thread: string, ms: number): Promise<Window> {
  const [from, workFrom] = [instantOf(thread), counter.read()];
  await sleep(ms);
  const [to, workTo] = [instantOf(thread), counter.read()];
  const work = Number(workTo - workFrom);
  const { ns, ran, waited } = partsOf(from, to);
  if (work === 0) throw new Error(`${counter.name} stands still`);
  const byClock = (work * 1e9) / ns;
  return { byClock, byCpu: byClock / ran, waited, stood: 1 - ran - waited };
}

/** Parts of the time between two instants. */
export function partsOf(
  from: ThreadInstant,
  to: ThreadInstant,
): { readonly ns: number; readonly ran: number; readonly waited: number } {
  const ns = Number(to.ns - from.ns);
  return { ns, ran: Number(to.ranNs - from.ranNs) / ns, waited: Number(to.waitedNs - from.waitedNs) / ns };
}
