import { readFileSync } from 'node:fs';
import { DomschedError } from '../../error.ts';
import { type BorderLimits, leadToBorders } from './instruction-border.ts';
import { awaitStop, detach, ENDED, interrupt, poll, seize, stands } from './ptrace.ts';

const ESRCH = 3;
/**
 * Least time limit for all threads to stop. A thread that writes to a hanging disk does not stop before the write ends,
 * and on a busy host none does before it gets a CPU.
 */
const STOP_LIMIT_MS = 250;
/** Time limits for translated code to end an instruction, which takes microseconds unless the host is busy. */
const BORDER_LIMITS: BorderLimits = { allMs: 1_000, standMs: 500 };
/** Most looks for new threads. */
const MAX_ROUNDS = 8;
/** How long to wait for a running thread in order to let it go. */
const LET_GO_MS = 2;
/** Interval for retrying to let go of a thread that did not stop. */
const AGAIN_MS = 50;

/**
 * Threads of a machine's process that stand still because we trace them. The kernel lets all of them go on when our
 * process ends in any way.
 */
export class StoppedThreads {
  readonly #pid: number;
  /** The signal that each thread was about to get. */
  readonly #threads = new Map<number, number>();
  #over = false;

  private constructor(pid: number) {
    this.#pid = pid;
  }

  /**
   * Stops threads, each between two instructions of the guest, and looks again until no new one has appeared.
   * @param choose returns the threads that must stand, as they are now
   * @param translates whether a thread runs guest instructions that the process translates into several of the host
   * @param limits time limits for these to end an instruction
   * @throws DomschedError `refused` when another process traces one, or we may not; `timeout` when one does not stop in
   *   time; `domain-gone`. All threads go on then.
   */
  static stop(
    pid: number,
    choose: () => readonly number[],
    translates: (thread: number) => boolean = () => false,
    limits = BORDER_LIMITS,
  ): StoppedThreads {
    const stopped = new StoppedThreads(pid);
    const end = performance.now() + Math.max(STOP_LIMIT_MS, limits.standMs);
    try {
      for (let round = 0; ; round++) {
        const fresh = choose().filter((thread) => !stopped.#threads.has(thread));
        if (fresh.length === 0) break;
        if (round === MAX_ROUNDS) throw late(pid, 'it starts new threads without end');
        stopped.#seize(fresh, end);
      }
      if (stopped.#threads.size === 0) throw gone(pid);
      stopped.#toBorder(translates, limits);
      return stopped;
    } catch (error) {
      stopped.release();
      throw error;
    }
  }

  get threads(): readonly number[] {
    return [...this.#threads.keys()];
  }

  /** Whether all have stood since they were stopped. */
  get stand(): boolean {
    return !this.#over && this.threads.every(stands);
  }

  release(): void {
    this.#over = true;
    for (const [thread, signal] of this.#threads) letGo(thread, signal);
    this.#threads.clear();
  }

  #seize(threads: readonly number[], end: number): void {
    const asked: number[] = [];
    for (const thread of threads) {
      // A thread that could not be let go yet is still ours.
      const error = lingering.delete(thread) ? 0 : seize(thread);
      if (error === ESRCH) continue;
      if (error !== 0) throw denied(this.#pid, thread, error);
      this.#threads.set(thread, 0);
      if (interrupt(thread) === 0) asked.push(thread);
      else this.#threads.delete(thread);
    }
    for (const thread of asked) {
      const signal = awaitStop(thread, end);
      if (signal === undefined) throw late(this.#pid, `its thread ${thread} does not stop`);
      if (signal === ENDED) this.#threads.delete(thread);
      else this.#threads.set(thread, signal);
    }
  }

  /** Ends instructions that are half done: translated code writes to the guest's memory in several steps. */
  #toBorder(translates: (thread: number) => boolean, limits: BorderLimits): void {
    const signals = new Map([...this.#threads].filter(([thread]) => translates(thread)));
    if (signals.size === 0) return;
    const away = leadToBorders(this.#pid, signals, limits);
    for (const [thread, signal] of signals) this.#threads.set(thread, signal);
    if (away !== undefined) throw late(this.#pid, `its thread ${away} is in the middle of an instruction`);
  }
}

/** Threads that could not be let go because they did not stop. They run, but nobody else can trace them. */
const lingering = new Set<number>();
let again: NodeJS.Timeout | undefined;

/** Lets a seized thread go on, now or as soon as possible. */
function letGo(thread: number, signal: number): void {
  // It may have stopped since, for a signal that it has yet to get.
  const since = poll(thread);
  if (detach(thread, since?.kind === 'stopped' ? since.signal : signal)) return;
  // It runs, and only a standing thread can be let go.
  interrupt(thread);
  const found = awaitStop(thread, performance.now() + LET_GO_MS);
  if (found === ENDED || (found !== undefined && detach(thread, found))) lingering.delete(thread);
  else lingering.add(thread);
  if (lingering.size === 0) return;
  again ??= setInterval(() => {
    for (const each of [...lingering]) letGo(each, 0);
    if (lingering.size > 0) return;
    clearInterval(again);
    again = undefined;
  }, AGAIN_MS).unref();
}

function late(pid: number, why: string): DomschedError {
  const message = `process ${pid} was not stopped in time: ${why}; it goes on, and nothing was changed. Try again`;
  return new DomschedError('timeout', message, { pid, again: true });
}

function gone(pid: number): DomschedError {
  return new DomschedError('domain-gone', `process ${pid} of the virtual machine has ended`, { pid });
}

function denied(pid: number, thread: number, error: number): DomschedError {
  const tracer = tracerOf(thread);
  const why =
    tracer > 0
      ? `process ${tracer} traces it already (a debugger, strace, another domsched): end that one first`
      : `the kernel does not allow it (error ${error}); domsched doctor says what forbids it`;
  return new DomschedError('refused', `process ${pid} cannot be stopped: ${why}`, { pid, tracer, error });
}

/** Pid of the process that traces a thread; 0 if there is none. */
export function tracerOf(thread: number): number {
  try {
    const status = readFileSync(`/proc/${thread}/status`, 'latin1');
    return Number(/^TracerPid:\s+(\d+)$/m.exec(status)?.[1] ?? 0);
  } catch {
    return 0;
  }
}
