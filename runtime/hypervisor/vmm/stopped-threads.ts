import { readFileSync } from 'node:fs';
import { DomschedError } from '../../error.ts';
import { leadToBorder } from './instruction-border.ts';
import { awaitStop, detach, ENDED, interrupt, seize, stands } from './ptrace.ts';

const ESRCH = 3;
/** How long all threads may take to stand. One that writes to a disk that hangs does not stop before that is over. */
const STOP_LIMIT_MS = 250;
/** How long translated code may take to the end of an instruction: microseconds, unless the host is busy with others. */
const BORDER_LIMIT_MS = 500;
/** Looks for threads that came meanwhile. */
const MAX_ROUNDS = 8;
/** How long letting a thread go waits for one that runs. */
const LET_GO_MS = 2;
/** How often one that did not stop is asked again to be let go. */
const AGAIN_MS = 50;

/**
 * Threads of a machine's process that stand still because we trace them. The kernel lets all of them go on when our process
 * ends, however it does.
 */
export class StoppedThreads {
  readonly #pid: number;
  /** By thread, the signal that it was about to get. */
  readonly #threads = new Map<number, number>();
  #over = false;

  private constructor(pid: number) {
    this.#pid = pid;
  }

  /**
   * Stops threads, each between two instructions of the guest, and looks again until no new one came meanwhile.
   * @param choose the threads that are to stand, as they are now
   * @param translates whether a thread runs instructions of the guest that the process translates, in pieces
   * @throws DomschedError `refused` when one is traced by somebody else, or we may not; `timeout` when one does not stop in
   *   time; `domain-gone`. All of them go on then.
   */
  static stop(
    pid: number,
    choose: () => readonly number[],
    translates: (thread: number) => boolean = () => false,
  ): StoppedThreads {
    const stopped = new StoppedThreads(pid);
    const end = performance.now() + STOP_LIMIT_MS;
    try {
      for (let round = 0; ; round++) {
        const fresh = choose().filter((thread) => !stopped.#threads.has(thread));
        if (fresh.length === 0) break;
        if (round === MAX_ROUNDS) throw late(pid, 'it starts new threads without end');
        stopped.#seize(fresh, end);
      }
      if (stopped.#threads.size === 0) throw gone(pid);
      stopped.#toBorder(translates);
      return stopped;
    } catch (error) {
      stopped.release();
      throw error;
    }
  }

  get threads(): readonly number[] {
    return [...this.#threads.keys()];
  }

  /** Whether each of them stands, and has since it was stopped. */
  get stand(): boolean {
    return !this.#over && this.threads.every(stands);
  }

  /** Lets all of them go on. */
  release(): void {
    this.#over = true;
    for (const [thread, signal] of this.#threads) letGo(thread, signal);
    this.#threads.clear();
  }

  #seize(threads: readonly number[], end: number): void {
    const asked: number[] = [];
    for (const thread of threads) {
      // One that could not be let go yet is ours still.
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

  /** Translated code of one instruction writes to the guest's memory in several steps: none may be between two of them. */
  #toBorder(translates: (thread: number) => boolean): void {
    const end = performance.now() + BORDER_LIMIT_MS;
    for (const [thread, signal] of this.#threads) {
      if (!translates(thread)) continue;
      const after = leadToBorder(this.#pid, thread, signal, end);
      if (after === undefined)
        throw late(this.#pid, `its thread ${thread} is in the middle of an instruction`);
      this.#threads.set(thread, after);
    }
  }
}

/** Threads that did not stop, so that they could not be let go either: they run, but nobody else can trace them. */
const lingering = new Set<number>();
let again: NodeJS.Timeout | undefined;

/** Lets a thread that we have seized go on, now or as soon as it can be. */
function letGo(thread: number, signal: number): void {
  if (detach(thread, signal)) return;
  // It runs: only one that stands can be let go.
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
  return new DomschedError('timeout', message, { pid });
}

function gone(pid: number): DomschedError {
  return new DomschedError('domain-gone', `process ${pid} of the virtual machine has ended`, { pid });
}

function denied(pid: number, thread: number, error: number): DomschedError {
  const tracer = tracerOf(thread);
  const why =
    tracer > 0
      ? `process ${tracer} traces it already (a debugger, strace): end that one first`
      : `the kernel does not allow it (error ${error}); domsched doctor says what forbids it`;
  return new DomschedError('refused', `process ${pid} cannot be stopped: ${why}`, { pid, tracer, error });
}

/** Who traces a thread; 0 for nobody. */
export function tracerOf(thread: number): number {
  try {
    const status = readFileSync(`/proc/${thread}/status`, 'latin1');
    return Number(/^TracerPid:\s+(\d+)$/m.exec(status)?.[1] ?? 0);
  } catch {
    return 0;
  }
}
