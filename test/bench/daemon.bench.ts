/**
 * CPU that the daemon uses, over 10, 50 and 200 domains of 50 tasks at intervals of 0.5 s and 50 ms. The domains are
 * made in memory: what the reads of a real hypervisor cost comes on top (memory.bench.ts). In half of them something
 * runs between any two looks; the others idle.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import Table from 'cli-table3';
import pino from 'pino';
import { Daemon } from '../../runtime/daemon/daemon.ts';
import { Hosts } from '../../runtime/hypervisor/connect.ts';
import { FakeHost } from '../../runtime/hypervisor/fake/host.ts';
import { combine } from '../../runtime/policy/combine.ts';
import { idleOnly } from '../../runtime/policy/idle-only.ts';
import { selector } from '../../runtime/policy/selector.ts';
import { Journals } from '../../runtime/surgeon/journaled-surgeon.ts';
import { busyGuests, TASKS } from './busy-hosts.ts';
import { record } from './harness.ts';

const SECONDS = Number(process.argv[2] ?? 10);

async function measure(domains: number, intervalMs: number) {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-daemon-bench-'));
  const { guests, work } = await busyGuests(domains);
  const policy = idleOnly() as never;
  const decide = combine([
    { name: 'none', policy, select: selector([{ comm: 'no-such' }]), windows: [], limit: undefined },
  ]);
  const host = new FakeHost(guests.map(({ domain }) => domain));
  const daemon = new Daemon(
    {
      intervalMs,
      idleIntervalMs: intervalMs,
      discoveryMs: 2_000,
      techniques: undefined,
      decide,
      origins: false,
      hosts: new Hosts([host]),
      observers: [],
    },
    pino({ level: 'silent' }),
    undefined,
    new Journals(directory),
  );
  const stop = new AbortController();
  const running = daemon.run(stop.signal);
  while ([...daemon.domains.values()].filter(({ guest }) => guest !== undefined).length < domains)
    await sleep(50);
  // To let something run costs next to nothing.
  const load = setInterval(work, intervalMs);
  await sleep(1_000);
  const loadUs = cost(work);
  const before = process.cpuUsage();
  const ticks = daemon.last!.tick;
  const start = performance.now();
  await sleep(SECONDS * 1000);
  const { user, system } = process.cpuUsage(before);
  const wallMs = performance.now() - start;
  const made = daemon.last!.tick - ticks;
  const missed = Math.max(0, Math.round(wallMs / intervalMs) - made);
  clearInterval(load);
  stop.abort();
  await running;
  await daemon.close();
  await rm(directory, { recursive: true, force: true });
  const usedMs = (user + system) / 1000 - (made * loadUs) / 1000;
  return {
    domains,
    intervalMs,
    percent: (100 * usedMs) / wallMs,
    perTickMs: usedMs / made,
    ticks: made,
    missed,
  };
}

function cost(what: () => void): number {
  const before = process.cpuUsage();
  for (let i = 0; i < 20; i++) what();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 20;
}

const results = [];
for (const domains of [10, 50, 200])
  for (const interval of [500, 50]) results.push(await measure(domains, interval));
const table = new Table({
  style: { head: [], border: [] },
  head: ['domains', 'interval, ms', '% of one CPU', 'CPU per tick, ms', 'ticks', 'missed'],
});
for (const { domains, intervalMs, percent, perTickMs, ticks, missed } of results) {
  table.push([domains, intervalMs, percent.toFixed(1), perTickMs.toFixed(2), ticks, missed]);
}
console.log(`${TASKS} tasks per domain, ${SECONDS} s each`);
console.log(table.toString());
await record('daemon', { tasks: TASKS, seconds: SECONDS, results });
