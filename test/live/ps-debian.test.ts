import test, { type ExecutionContext } from 'ava';
import type { DomschedError } from '../../runtime/error.ts';
import { Guest, type Snapshot } from '../../runtime/guest/guest.ts';
import type { Process } from '../../runtime/guest/process.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { advance, type GuestVirtual } from '../../runtime/memory/address.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { type ProcStat, parseProcStats, STATE_NAMES } from './proc-stat.ts';
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
  { kernel: 'debian-6.1-cloud', cpu: 'max', levels: 5 },
  { kernel: 'debian-6.12-cloud', cpu: 'qemu64', levels: 4 },
] as const;

/** include/uapi/linux/sched.h */
const POLICIES = ['normal', 'fifo', 'rr', 'batch', '', 'idle', 'deadline'];
/** ms per clock tick of /proc: USER_HZ is 100 on x86. */
const TICK_NS = 1e7;
const READ_STATS = 'cat /proc/[0-9]*/stat 2>/dev/null; true';
const READ_THREADS = 'cat /proc/[0-9]*/task/*/stat 2>/dev/null; true';

for (const { kernel, cpu, levels } of VARIANTS) {
  test.serial(`${kernel}: ps shows what the guest's own /proc says`, async (t) => {
    await using guest = await bootDebian({ kernel, cpu, programs, setup });
    await using layouts = await TestLayouts.of(guest.kernel.vmlinux);
    await againstProc(t, guest, layouts, levels);
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
    compare(t, before, seen.processes, after);
  }
  const before = parseProcStats(await guest.run(READ_THREADS));
  const seen = await attached.take({ threads: true });
  const after = parseProcStats(await guest.run(READ_THREADS));
  compare(t, before, seen.processes, after);
  t.true(seen.processes.filter(({ tgid, pid }) => tgid !== pid).length > 0, 'there are threads');

  await exactCounts(t, guest, attached);
}

/** What did not change between two looks of the guest's own must be what we saw between them. */
function compare(
  t: ExecutionContext,
  before: ReadonlyMap<number, ProcStat>,
  seen: readonly Process[],
  after: ReadonlyMap<number, ProcStat>,
): void {
  const byPid = new Map(seen.map((process) => [process.pid, process]));
  let compared = 0;
  let states = 0;
  let cpus = 0;
  let asleep = 0;
  for (const [pid, first] of before) {
    const last = after.get(pid);
    if (last === undefined || last.start !== first.start) continue;
    const process = byPid.get(pid);
    if (process === undefined) {
      t.fail(`${pid} (${first.comm}) is missing`);
      continue;
    }
    const what = `${pid} (${JSON.stringify(first.comm)})`;
    compared += 1;
    if (first.ppid === last.ppid) t.is(process.ppid, first.ppid, `parent of ${what}`);
    if (first.comm === last.comm) t.true(sameName(process, first), `name of ${what}: ${process.comm}`);
    t.is(process.nice, first.nice, `nice of ${what}`);
    t.is(process.policy, POLICIES[first.policy] as string, `policy of ${what}`);
    t.is(process.kernelThread, (first.flags & 0x20_0000) !== 0, `kernel thread: ${what}`);
    if (first.threads === last.threads) t.is(process.threads, first.threads, `threads of ${what}`);
    t.is(Math.floor(process.startTimeNs / TICK_NS), first.start, `start of ${what}`);
    // Time only grows, and ours was taken in between. What user and system time have of it is an estimate that may
    // shift, but never below what was shown before.
    const total = process.utimeNs + process.stimeNs;
    t.true(total >= (first.utime + first.stime) * TICK_NS, `time of ${what}: ${total} is too little`);
    t.true(total <= (last.utime + last.stime + 2) * TICK_NS, `time of ${what}: ${total} is too much`);
    t.true(process.utimeNs >= first.utime * TICK_NS, `user time of ${what}`);
    t.true(process.stimeNs >= first.stime * TICK_NS, `system time of ${what}`);
    const ran = last.utime + last.stime !== first.utime + first.stime;
    if (ran || first.state !== last.state || first.state === 'R') {
      t.true(Object.values(STATE_NAMES).flat().includes(process.state), `state of ${what}: ${process.state}`);
      continue;
    }
    asleep += 1;
    // It slept at both looks and got no time: most likely, but not surely, it slept all along.
    if (STATE_NAMES[first.state]!.includes(process.state)) states += 1;
    else
      t.true(
        ['running', 'ready'].includes(process.state),
        `state of ${what}: ${process.state}, not ${first.state}`,
      );
    if (process.cpu === first.cpu) cpus += 1;
  }
  t.true(compared >= 50, `${compared} processes compared`);
  t.true(asleep >= 30, `${asleep} slept`);
  t.true(states >= 0.9 * asleep, `${states} of ${asleep} states are equal`);
  t.true(cpus >= 0.9 * asleep, `${cpus} of ${asleep} CPUs are equal`);
  for (const process of seen) {
    if (before.has(process.pid) || after.has(process.pid)) continue;
    // Born after the first look and gone before the second: children of the fork loop and of the shell.
    t.regex(
      process.comm,
      /^(forker-a|workload|init|cat|kworker.*)$/,
      `${process.pid} is unknown to the guest`,
    );
  }
}

/**
 * /proc prints a program's name as it is, except that newline and backslash are escaped. Of kernel threads it knows a
 * longer name than task_struct.comm has room for, and of a workqueue's it adds what that works on.
 */
function sameName({ rawComm, kernelThread }: Process, { comm }: ProcStat): boolean {
  if (!kernelThread) return rawComm === comm.replaceAll('\\n', '\n').replaceAll('\\\\', '\\');
  return rawComm === comm.slice(0, 15) || comm.startsWith(`${rawComm}-`) || comm.startsWith(`${rawComm}+`);
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
