import type { ExecutionContext } from 'ava';
import type { Process } from '../../runtime/guest/process.ts';
import { type ProcStat, STATE_NAMES } from './proc-stat.ts';

/** include/uapi/linux/sched.h */
const POLICIES = ['normal', 'fifo', 'rr', 'batch', '', 'idle', 'deadline'];
/** ms per clock tick of /proc: USER_HZ is 100 on x86. */
const TICK_NS = 1e7;
export const READ_STATS = 'cat /proc/[0-9]*/stat 2>/dev/null; true';
export const READ_THREADS = 'cat /proc/[0-9]*/task/*/stat 2>/dev/null; true';

/**
 * What did not change between two looks of the guest's own must be what we saw between them.
 * @param least processes that have to be compared
 */
export function compareWithProc(
  t: ExecutionContext,
  before: ReadonlyMap<number, ProcStat>,
  seen: readonly Process[],
  after: ReadonlyMap<number, ProcStat>,
  least = 50,
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
        ['running', 'ready', 'disk-sleep'].includes(process.state),
        `state of ${what}: ${process.state}, not ${first.state}`,
      );
    if (process.cpu === first.cpu) cpus += 1;
  }
  t.true(compared >= least, `${compared} processes compared`);
  t.true(asleep >= 0.6 * least, `${asleep} slept`);
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
