import test, { type ExecutionContext } from 'ava';
import type { DomschedError } from '../../runtime/error.ts';
import { Guest, type Snapshot } from '../../runtime/guest/guest.ts';
import type { Process } from '../../runtime/guest/process.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { advance, type GuestVirtual } from '../../runtime/memory/address.ts';
import { pagingLevels } from './accelerator.ts';
import { compareWithProc, READ_STATS, READ_THREADS } from './against-proc.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { parseProcStats } from './proc-stat.ts';
import { domsched, TestLayouts } from './ps-layouts.ts';

const programs = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-nice', nice: 7 },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'pipe', name: 'pipe-a' },
  { kind: 'threads', name: 'threads-a' },
  { kind: 'forker', name: 'forker-a' },
] as const;

/** Stopped, zombie, negative nice, names that a terminal would obey. */
const setup = `
sleep 100000 & kill -STOP $!
(sleep 0.01 & exec sleep 100000) &
sleep 100000 & renice -n -13 -p $!
odd="/run/$(printf 'a\\033[31m b)')"
printf '#!/bin/sh\\nwhile :; do sleep 100000; done\\n' >"$odd"; chmod +x "$odd"; "$odd" &
`;

const VARIANTS = [
  { kernel: 'debian-6.1-cloud', cpu: 'max' },
  { kernel: 'debian-6.12-cloud', cpu: 'qemu64' },
] as const;

for (const { kernel, cpu } of VARIANTS) {
  test.serial(`${kernel}: ps shows what the guest's own /proc says`, async (t) => {
    await using guest = await bootDebian({ kernel, cpu, programs, setup });
    await using layouts = await TestLayouts.of(guest.kernel.vmlinux);
    await againstProc(t, guest, layouts, pagingLevels(cpu, guest.accelerator));
    await throughTheCommand(t, guest, layouts);
    guest.checkConsole();
  });
}

async function againstProc(
  t: ExecutionContext,
  guest: LiveGuest & { kernel: { release: string } },
  layouts: TestLayouts,
  levels: number,
): Promise<void> {
  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const attached = await Guest.attach(domain, layouts.known);
  t.is(attached.space.mode.split.length - 1, levels);
  t.is(attached.kernel.release, guest.kernel.release);
  t.true(attached.facts.every(({ holds }) => holds));
  t.deepEqual(new Set(attached.kernel.derivations.map(({ of }) => of)), new Set(['slide', 'physBase']));
  // The guest's own symbol addresses are the only other witness of its slide.
  const text = await guest.run("grep -m1 ' _text$' /proc/kallsyms");
  t.is(attached.symbol('_text'), BigInt(`0x${text.split(' ')[0]}`) as never);

  for (const pause of [false, true, false]) {
    const before = parseProcStats(await guest.run(READ_STATS));
    const seen = await attached.take({ pause });
    const after = parseProcStats(await guest.run(READ_STATS));
    t.is(seen.exact, pause);
    compareWithProc(t, before, seen.processes, after);
  }
  const before = parseProcStats(await guest.run(READ_THREADS));
  const seen = await attached.take({ threads: true });
  const after = parseProcStats(await guest.run(READ_THREADS));
  compareWithProc(t, before, seen.processes, after);
  t.true(seen.processes.filter(({ tgid, pid }) => tgid !== pid).length > 0, 'there are threads');

  await exactCounts(t, guest, attached);
}

/**
 * While the domain is paused, the run queues hold exactly the tasks that say of themselves that they are queued, on
 * the CPU that they say: found from the list of processes, not from the queues.
 */
async function exactCounts(t: ExecutionContext, guest: LiveGuest, attached: Guest): Promise<void> {
  const onRq = attached.layout.field('task_struct', 'on_rq');
  let found = 0;
  for (let round = 0; round < 20; round++) {
    await using _pause = await attached.domain.pause!.acquire();
    let seen: Snapshot;
    try {
      seen = attached.snapshot({ threads: true });
    } catch (error) {
      // Paused in the middle of a change of its queues, under their lock.
      t.is((error as DomschedError).code, 'guest-inconsistent');
      t.true(attached.queues.lockHeld.subarray(0, attached.queues.cpus).includes(1), String(error));
      continue;
    }
    t.true(seen.exact);
    if (seen.runQueues.some(({ lockHeld }) => lockHeld)) continue;
    const isMarked = (address: GuestVirtual) => attached.space.readU32(advance(address, onRq.offset)) === 1;
    const queued = new Map(
      seen.runQueues.flatMap(({ cpu, tasks }) => tasks.map(({ address }) => [address, cpu] as const)),
    );
    for (const { address, pid, cpu } of seen.processes) {
      if (isMarked(address)) t.is(queued.get(address), cpu, `${pid} is marked as queued`);
    }
    // Among them may be one that is no longer in any list of processes: it has ended, and runs to its last switch.
    for (const address of queued.keys()) t.true(isMarked(address));
    for (const { curr, idle, nrRunning, tasks } of seen.runQueues) {
      t.is(tasks.length, nrRunning);
      // One that went to sleep stays current until the next is picked.
      if (curr !== idle && isMarked(curr))
        t.true(tasks.some(({ address, running }) => running && address === curr));
    }
    found += queued.size;
  }
  t.true(found > 0);
  t.is(runQueueCpus(attached), (await guest.run('cat /sys/devices/system/cpu/online')).trim());
}

function runQueueCpus(attached: Guest): string {
  const cpus = attached.cpus.map(({ cpu }) => cpu);
  return cpus.length === 1 ? String(cpus[0]) : `${cpus[0]}-${cpus.at(-1)}`;
}

async function throughTheCommand(t: ExecutionContext, guest: LiveGuest, layouts: TestLayouts): Promise<void> {
  const env = { XDG_DATA_HOME: layouts.dataHome };
  const connect = ['--connect', guest.connection];
  const before = parseProcStats(await guest.run(READ_STATS));
  const { stdout } = await domsched(['ps', guest.name, ...connect, '--json'], { env });
  const after = parseProcStats(await guest.run(READ_STATS));
  const rows = JSON.parse(stdout) as (Process & { domain: string })[];
  t.deepEqual(Object.keys(rows[0]!), [
    ...['domain', 'pid', 'tgid', 'ppid', 'comm', 'state', 'cpu', 'nice', 'policy', 'utimeNs', 'stimeNs'],
    ...['threads', 'kernelThread'],
  ]);
  for (const [pid, { comm, nice }] of before) {
    if (after.get(pid)?.start !== before.get(pid)!.start) continue;
    const row = rows.find((candidate) => candidate.pid === pid);
    t.is(row?.domain, guest.name);
    t.is(row?.nice, nice);
    if (!row?.kernelThread && /^[ -[\]-~]*$/.test(comm)) t.is(row?.comm, comm);
  }
  const policies = new Set(rows.map(({ policy }) => policy));
  for (const policy of ['normal', 'fifo']) t.true(policies.has(policy), policy);
  t.true(rows.some(({ nice }) => nice === -13));
  const states = new Set(rows.map(({ state }) => state));
  for (const state of ['sleeping', 'idle', 'stopped', 'zombie']) t.true(states.has(state as never), state);

  const tree = (await domsched(['ps', ...connect, '--tree', '--sort', 'comm'], { env })).stdout;
  t.regex(tree, /^DOMAIN +PID +PPID +CPU +STATE +NI +POLICY +TIME +THR COMMAND$/m);
  t.regex(tree, /a\\x1b\[31m b\)/, 'a name with an escape sequence is shown escaped');
  t.notRegex(tree, /[^\n\x20-\x7e]/, 'nothing but printable characters');
  t.regex(tree, /^.* {2}\[ksoftirqd\/1\]$/m, 'below kthreadd');
}
