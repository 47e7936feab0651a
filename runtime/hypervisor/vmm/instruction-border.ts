import { readFileSync } from 'node:fs';
import { addressOf, ProcessMemory, RangeList } from '../process-memory.ts';
import { BEFORE_BYTES, CODE_BYTES, standsAtBlockStart } from './block-start.ts';
import { awaitStop, ENDED, goOn, interrupt, nap, registersOf, type ThreadRegisters } from './ptrace.ts';

/** Number of the system call, and results of a call that was cut short (arch/x86/entry/syscalls, linux/errno.h). */
const FUTEX = 202;
const [RESTART_FIRST, RESTART_LAST] = [-516, -512];
/** Mask of the futex command, `FUTEX_WAIT`, and the value of a C library lock with waiters (nptl/lowlevellock.h). */
const FUTEX_COMMAND = 0x7fn;
const FUTEX_WAIT = 0n;
const LOCK_CONTENDED = 2n;

/** Shortest and longest time that threads run between two looks; longer if the host gives them no CPU. */
const FIRST_NAP_US = 5;
const LAST_NAP_US = 1_000;
const LOOK_US = 20;
/** Longest time for all of them to get a CPU of the host between two looks. */
const CPU_LIMIT_MS = 200;
/** Looks in a row at which a thread waits for a lock before those that stand already run again. */
const MAX_LOCKED = 20;

/** Time limits for {@link leadToBorders}. */
export interface BorderLimits {
  readonly allMs: number;
  readonly standMs: number;
}

const code = new Uint8Array(new ArrayBuffer(1024));
const local = new RangeList();
const remote = new RangeList();

/**
 * Leads stopped threads of a translating QEMU (TCG) to points where no guest instruction is half done: the start of a
 * translated block, which each of them has between two instructions, or the wait of a halted CPU. They run for short
 * moments until they are found there, all together, because one may wait for a lock that another one has.
 *
 * KVM does not need this: a stopped thread has left the guest between two instructions. Translated code runs one
 * instruction as several of the host, and may be about to write back a word that it has read.
 *
 * @param signals signal that each thread has yet to get, by thread; kept up to date
 * @param limits longest time for all of it, and longest time for which some stand there already and wait for others
 * @returns a thread that was not found there in time, which may run now; undefined when all stand there
 */
export function leadToBorders(
  pid: number,
  signals: Map<number, number>,
  limits: BorderLimits,
): number | undefined {
  const memory = new ProcessMemory(pid);
  const away = new Set(signals.keys());
  const last = performance.now() + limits.allMs;
  let end = last;
  const before = new Map<number, number>();
  let locked = 0;
  for (let us = FIRST_NAP_US; ; ) {
    let moved = false;
    let waitsForLock = false;
    for (const thread of away) {
      const registers = registersOf(thread);
      if (registers === undefined) return thread;
      const wait = waitOf(registers);
      if (wait === 'halted' || isBlockStart(memory, registers)) {
        away.delete(thread);
        continue;
      }
      waitsForLock ||= wait === 'lock';
      moved ||= registers.rip !== before.get(thread);
      before.set(thread, registers.rip);
    }
    const [first] = away;
    if (first === undefined) return undefined;
    if (away.size === signals.size) end = last;
    else if (end === last) end = Math.min(last, performance.now() + limits.standMs);
    if (performance.now() > end) return first;
    locked = waitsForLock ? locked + 1 : 0;
    if (locked === MAX_LOCKED) {
      // Who has the lock may stand already.
      for (const thread of signals.keys()) away.add(thread);
      locked = 0;
    }
    // If none has moved, they were stopped again before they got a CPU.
    us = moved ? FIRST_NAP_US + Math.random() * FIRST_NAP_US : Math.min(2 * us, LAST_NAP_US);
    const lost = letRun(away, signals, us, end);
    if (lost !== undefined) return lost;
  }
}

/** @returns a thread that does not stand afterwards */
function letRun(
  threads: ReadonlySet<number>,
  signals: Map<number, number>,
  us: number,
  end: number,
): number | undefined {
  let lost: number | undefined;
  const turns = [...threads].map((thread) => ({ thread, before: turnsOf(thread) }));
  for (const thread of threads) {
    if (goOn(thread, signals.get(thread)!)) signals.set(thread, 0);
    else lost ??= thread;
  }
  nap(us);
  // A thread that is stopped again before it got a CPU has done nothing.
  const last = Math.min(end, performance.now() + CPU_LIMIT_MS);
  const waits = ({ thread, before }: (typeof turns)[number]) =>
    before !== undefined && turnsOf(thread) === before;
  while (turns.some(waits) && performance.now() < last) nap(LOOK_US);
  for (const thread of threads) interrupt(thread);
  // All of them, even if one is lost: each may have stopped for a signal that it has yet to get.
  for (const thread of threads) {
    const found = awaitStop(thread, end);
    if (found === undefined || found === ENDED) lost ??= thread;
    else signals.set(thread, found);
  }
  return lost;
}

function turnsOf(thread: number): string | undefined {
  try {
    return turnsIn(readFileSync(`/proc/${thread}/schedstat`, 'latin1'));
  } catch {
    return undefined;
  }
}

/**
 * How often a thread got a CPU (Documentation/scheduler/sched-stats.rst).
 * @returns undefined from a kernel that does not count: it says 0, though whoever can be stopped has run
 */
export function turnsIn(schedstat: string): string | undefined {
  const turns = schedstat.trim().split(' ')[2];
  return turns === '0' ? undefined : turns;
}

/**
 * What a thread waits for in a system call: with nothing to do, as that of a halted CPU, or for a lock, which may be
 * taken in the middle of an instruction.
 */
function waitOf({
  call,
  result,
  args: [, operation, value],
}: ThreadRegisters): 'halted' | 'lock' | undefined {
  if (call < 0 || result < RESTART_FIRST || result > RESTART_LAST) return undefined;
  const isLock =
    call === FUTEX && (operation & FUTEX_COMMAND) === FUTEX_WAIT && (value & 0xffff_ffffn) === LOCK_CONTENDED;
  return isLock ? 'lock' : 'halted';
}

function isBlockStart(memory: ProcessMemory, { rip }: ThreadRegisters): boolean {
  const length = BEFORE_BYTES + CODE_BYTES;
  local.set(0, addressOf(code), length);
  remote.set(0, rip - BEFORE_BYTES, length);
  return memory.read(local, 1, remote, 1) === length && standsAtBlockStart(code, BEFORE_BYTES);
}
