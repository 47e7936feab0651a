import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { DomschedError } from '../../error.ts';
import { isAlive } from '../../host-process.ts';
import { processState } from '../qemu/qemu-process.ts';
import { isStopped } from '../stopped-process.ts';
import { lastRan } from '../thread-clock.ts';
import type { PauseProof, PauseUse, StandingPause } from '../types.ts';
import { checkAtRest, hasMonitor } from './at-rest.ts';
import type { Freezer } from './freezer.ts';
import type { MachineProcess } from './machine-process.ts';
import { StoppedThreads } from './stopped-threads.ts';
import { type MachineThreads, machineThreads } from './vcpu-threads.ts';

/** How often to retry when a machine does not come to a stop, because translated code or a disk is busy. */
const ATTEMPTS = 10;
const RETRY_MS = 2;
/**
 * How long some of the CPUs may stand still at the first attempt until the others do. The next ones take twice as long
 * each, up to a limit, so that a guest stands still for long only on a host that is too busy.
 */
const FIRST_STAND_MS = 25;
const LAST_STAND_MS = 500;
const ALL_MS = 1_000;
/** How long to wait for another tracer, which may be one of us in a pause of its own. */
const TRACED_MS = 2_000;
const TRACED_RETRY_MS = 10;
/** Longest silence of a CPU in an idle guest, whose own clocks wake it. */
const SILENCE_MS = 5_000;
const LOOK_MS = 5;
const STOP_LIMIT_MS = 100;

/** Pauses a machine by tracing the threads that run its CPUs. The rest of its process goes on, also its monitor. */
export class ProcessPause {
  readonly #machine: MachineProcess;
  readonly #translates: boolean;
  readonly #freezer: Freezer | undefined;
  #stopped: StoppedThreads | undefined;
  #use: PauseUse = 'edit';
  /** Frozen by us: `left` if a process of ours froze it and was killed since; then no thread is traced. */
  #frozen: 'now' | 'left' | undefined;
  /** Pid of a tracer that was waited for in vain: a debugger, which is not waited for at each look anew. */
  #lasting: number | undefined;

  constructor(machine: MachineProcess, freezer?: Freezer) {
    this.#machine = machine;
    this.#freezer = freezer;
    this.#translates = machine.kvmVcpus === 0;
  }

  /**
   * @param use for a look nothing is asked of those who move its memory or have paused it: their copy stays right
   * @throws DomschedError `refused` when it must not be traced or, for an edit, is being moved or already stands still;
   *   `timeout`; `domain-gone`
   */
  async stop(use: PauseUse = 'edit'): Promise<void> {
    const patience = performance.now() + TRACED_MS;
    for (let attempt = 1; ; ) {
      try {
        await this.#stopOnce(use, Math.min(FIRST_STAND_MS * 2 ** (attempt - 1), LAST_STAND_MS));
        return;
      } catch (error) {
        const tracer = tracerIn(error);
        if (tracer !== undefined && tracer !== this.#lasting) {
          if (performance.now() < patience) {
            await sleep(TRACED_RETRY_MS);
            continue;
          }
          this.#lasting = tracer;
        }
        const late = error instanceof DomschedError && error.code === 'timeout';
        if (!late || attempt === ATTEMPTS) throw error;
      }
      attempt += 1;
      await sleep(RETRY_MS);
    }
  }

  async #stopOnce(use: PauseUse, standMs: number): Promise<void> {
    const { pid, name } = this.#machine;
    this.#checkProcess();
    const threads = machineThreads(pid);
    this.#use = use;
    if (this.#isLeftFrozen()) {
      // It stands still. Who only looks does not let it go on, because an edit may be half written.
      if (use === 'look') return;
      checkAtRest(this.#machine, threads);
      this.#frozen = 'left';
      return;
    }
    if (use === 'edit') await this.#expectAtRest(threads);
    // A nameless thread beside named ones does not run a CPU yet.
    const cpus = threads.named > 0 ? new Set(threads.vcpus.slice(0, threads.named)) : undefined;
    const translates = (thread: number) => this.#translates && (cpus?.has(thread) ?? true);
    this.#stopped = StoppedThreads.stop(pid, () => machineThreads(pid).vcpus, translates, {
      allMs: ALL_MS,
      standMs,
    });
    try {
      if (use === 'edit') checkAtRest(this.#machine, machineThreads(pid));
      this.#checkProcess();
      if (this.#machine.kvmVcpus > this.#stopped.threads.length) {
        throw new DomschedError('refused', `${name}: not all threads that run its CPUs were found`, { pid });
      }
    } catch (error) {
      this.resume();
      throw error;
    }
  }

  /** What a pause for an edit would be refused with: see {@link Domain.editRefusal}. */
  editRefusal(): DomschedError | undefined {
    try {
      checkAtRest(this.#machine, machineThreads(this.#machine.pid));
      return undefined;
    } catch (error) {
      if (error instanceof DomschedError) return error;
      throw error;
    }
  }

  /** @throws DomschedError as {@link PauseGuard.prove} */
  prove(generation: number): PauseProof {
    const { pid, started, name } = this.#machine;
    // An edit that has joined the pause of a look has to wait for its end.
    if (this.#use === 'look') {
      const message = `${name} is paused for a look only; try again`;
      throw new DomschedError('edit-conflict', message, { domain: name, pid });
    }
    this.#checkProcess();
    const threads = machineThreads(pid);
    checkAtRest(this.#machine, threads);
    if (this.#frozen === 'left' && this.isQuiet())
      return { generation, answers: JSON.stringify([pid, started]) };
    const own = this.#stopped?.threads ?? [];
    if (!this.isQuiet() || threads.vcpus.some((thread) => !own.includes(thread))) {
      const message = `${name}: not all of its CPUs stand still any more`;
      throw new DomschedError('edit-conflict', message, { domain: name, pid });
    }
    return { generation, answers: JSON.stringify([pid, started, own]) };
  }

  /** A traced thread stands until we let it go or it is killed. */
  isQuiet(): boolean {
    if (this.#frozen === 'left') return this.#freezer!.by() === 'dead';
    return this.#stopped?.stand ?? false;
  }

  /** See {@link Domain.standing}: frozen by a process of ours that was killed. */
  standing(): StandingPause | undefined {
    return this.#freezer?.by() === 'dead' ? { by: 'dead' } : undefined;
  }

  /**
   * Freezes the machine, if it can be frozen, while an edit is written of which not every part is harmless.
   * @throws DomschedError as {@link Freezer.freeze}
   */
  keepOnDeath(keep: boolean, inParts: boolean): void {
    if (this.#frozen === 'left') return;
    if (keep && !inParts) {
      this.#freezer?.freeze();
      this.#frozen = this.#freezer && 'now';
    } else if (!keep) this.#thaw();
  }

  #thaw(): void {
    if (this.#frozen !== undefined) this.#freezer!.thaw();
    this.#frozen = undefined;
  }

  resume(): void {
    try {
      this.#thaw();
    } finally {
      this.#stopped?.release();
      this.#stopped = undefined;
    }
  }

  /**
   * Stops the whole process until somebody lets it go on, before its threads are let go: frozen, or stopped by a
   * signal, which for another user's process takes CAP_KILL (`runtime/daemon/domsched.service` has it). If neither
   * works, the threads are let go all the same, because what was written is harmless in parts.
   */
  abandon(): void {
    const { pid } = this.#machine;
    if (this.#freeze()) {
      this.#freezer!.forget();
      this.#frozen = undefined;
      this.resume();
      return;
    }
    try {
      if (isAlive(this.#machine)) process.kill(pid, 'SIGSTOP');
      const end = performance.now() + STOP_LIMIT_MS;
      while (isAlive(this.#machine) && processState(pid) !== 'T' && performance.now() < end);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    } finally {
      this.resume();
    }
  }

  /** @returns whether it is frozen */
  #freeze(): boolean {
    if (this.#frozen !== undefined) return true;
    try {
      this.keepOnDeath(true, false);
    } catch {
      return false;
    }
    return this.#frozen !== undefined;
  }

  /** @throws DomschedError `timeout` while another process of ours has frozen it; `refused` when somebody else has */
  #isLeftFrozen(): boolean {
    const { pid, name } = this.#machine;
    const by = this.#freezer?.by() ?? 'nobody';
    if (by === 'nobody' || by === 'dead') return by === 'dead';
    const why =
      by === 'peer'
        ? 'another domsched is editing it; try again'
        : `its control group is frozen; let it go on first: ${this.#freezer!.advice}`;
    throw new DomschedError(by === 'peer' ? 'timeout' : 'refused', `${name}: ${why}`, {
      domain: name,
      pid,
      again: by === 'peer',
    });
  }

  #checkProcess(): void {
    const { pid, name } = this.#machine;
    if (!isAlive(this.#machine))
      throw new DomschedError('domain-gone', `${name} has ended`, { domain: name });
    if (processState(pid) !== 'T') return;
    throw new DomschedError(
      'refused',
      `process ${pid} of ${name} is stopped by a signal; let it go on first: kill -CONT ${pid}`,
      { domain: name, pid },
    );
  }

  /** Nobody moves it or has paused it. */
  async #expectAtRest(threads: MachineThreads): Promise<void> {
    const { args, isQemu } = this.#machine;
    const saysRunning = checkAtRest(this.#machine, threads);
    // Without a manager's word somebody may have stopped it to save it; that is excluded once it was seen running.
    if (!saysRunning && isQemu && hasMonitor(args)) await this.#seenRunning(threads.vcpus);
  }

  /**
   * Waits until a CPU of the guest runs: the threads of a paused machine sleep, and when they last ran stays as it is. That
   * is compared for each thread with itself, because each of the host's CPUs has a clock of its own for it.
   */
  async #seenRunning(threads: readonly number[]): Promise<void> {
    const { pid, name } = this.#machine;
    const before = threads.map((thread) => lastRan(thread));
    for (const end = performance.now() + SILENCE_MS; ; await sleep(LOOK_MS)) {
      if (threads.some((thread, i) => processState(thread) === 'R' || lastRan(thread) !== before[i])) return;
      if (performance.now() < end) continue;
      throw new DomschedError(
        'refused',
        `${name}: none of its CPUs has run for ${SILENCE_MS / 1000} s: somebody has paused it or saves it, and which of them ` +
          'cannot be told; give it a QMP socket of ours',
        { domain: name, pid },
      );
    }
  }
}

/** Pid of the process, not stopped itself, that traces the machine, if a pause failed because of it. */
function tracerIn(error: unknown): number | undefined {
  const tracer = error instanceof DomschedError && error.details.tracer;
  return typeof tracer === 'number' && tracer > 0 && !isStopped(tracer) ? tracer : undefined;
}
