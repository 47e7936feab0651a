import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { DomschedError } from '../../error.ts';
import { type HostProcess, hostProcess, ownProcess } from '../../host-process.ts';
import { makeTableFile } from '../pause-files.ts';
import { PauseTable } from '../pause-table.ts';
import { LOOK_MS } from '../stopped-parent.ts';
import { MARK_AGES_MS, markPause, marksFolder, tidy, unmarkPause } from './pause-mark.ts';
import type { QmpClient } from './qmp-client.ts';

/** A machine that we have paused, and the slot of its pause in the table. */
interface ArmedPause {
  readonly machine: HostProcess;
  /** Threads that run its CPUs. */
  readonly vcpus: readonly number[];
  readonly slot: number;
  readonly descriptor: number;
  /** When it was marked last, ms of `performance.now()`. */
  markedAt: number;
}

/**
 * A small process beside ours that knows which machines we have paused, and resumes them if we die in any way or stand
 * still for long (SIGSTOP). It notices our death by the end of the pipe that connects us, which the kernel closes even
 * after SIGKILL, and sees in the {@link PauseTable} whether an edit is being written.
 *
 * Protocol, one line each: `+PID-STARTED SLOT DESCRIPTOR PATH` paused by us, `-…` resumed.
 */
export class Watchdog {
  /** How often the process looks whether we stand still, ms; taken when it starts. */
  lookMs = LOOK_MS;
  #child: ChildProcess | undefined;
  #table: PauseTable | undefined;
  readonly #armed = new Map<string, ArmedPause>();
  /** Pauses that are over and were claimed by the process: it may be about to resume the machine. */
  readonly #claimed = new Map<string, ArmedPause>();
  readonly #owner = randomUUID();

  /**
   * Call before pausing.
   * @param vcpus threads of the machine that run its CPUs
   * @param wish `keep` for a pause that a dead process left, until its edit is undone
   * @throws DomschedError `timeout` while the process still ends an earlier pause; as {@link markPause}
   */
  arm(
    { path, descriptor }: Pick<QmpClient, 'path' | 'descriptor'>,
    machine: HostProcess,
    vcpus: readonly number[],
    wish: 'resume' | 'keep' = 'resume',
  ): void {
    this.#table ??= new PauseTable(makeTableFile(marksFolder(), 'qemu'));
    this.#child ??= this.#start();
    this.#expectUnclaimed(path);
    markPause(machine, vcpus, this.#owner);
    const slot = this.#armed.get(path)?.slot ?? this.#table.take();
    this.#table.set(slot, machine.pid, wish);
    this.#armed.set(path, { machine, vcpus, slot, descriptor, markedAt: performance.now() });
    this.#send('+', path);
  }

  /**
   * Marks the pause of the machine at `path` anew if that was long ago. Call when its vCPUs have done something since:
   * when it has stopped, which takes long on a busy host, and when its registers were read.
   */
  stands(path: string): void {
    const armed = this.#armed.get(path);
    if (armed === undefined || performance.now() - armed.markedAt < MARK_AGES_MS) return;
    armed.markedAt = performance.now();
    try {
      markPause(armed.machine, armed.vcpus, this.#owner);
    } catch {
      // The first mark is there. It is believed if the machine stood soon enough.
    }
  }

  /**
   * Says whether an edit is being written, so that the machine at `path` must stay paused if we die now.
   * @throws DomschedError `edit-conflict` when we stood still for so long that the process has let the machine go on
   */
  keep(path: string, keep: boolean): void {
    const armed = this.#armed.get(path);
    if (armed === undefined) return;
    const { machine, slot } = armed;
    this.#table!.keep(slot, machine.pid, 'resume', keep);
  }

  /** Whether the machine at `path` must stay paused if we end now. */
  keeps(path: string): boolean {
    const armed = this.#armed.get(path);
    return armed !== undefined && this.#table!.wishAt(armed.slot) === 'keep';
  }

  /** Call after resuming. */
  disarm(path: string): void {
    const armed = this.#armed.get(path);
    if (armed === undefined) return;
    this.#send('-', path);
    this.#armed.delete(path);
    unmarkPause(armed.machine, this.#owner);
    if (this.#table!.wishAt(armed.slot) === 'claimed') this.#claimed.set(path, armed);
    else this.#table!.clear(armed.slot);
  }

  /** Ends the process. Armed machines are forgotten, not resumed. */
  close(): void {
    for (const path of this.#armed.keys()) this.#send('-', path);
    this.#armed.clear();
    this.#child?.stdin?.end();
    this.#child = undefined;
  }

  #send(what: '+' | '-', path: string): void {
    const { machine, slot, descriptor } = this.#armed.get(path)!;
    this.#child ??= this.#start();
    this.#child.stdin!.write(`${what}${machine.pid}-${machine.started} ${slot} ${descriptor} ${path}\n`);
  }

  /** A resume that comes late must not meet the next pause. */
  #expectUnclaimed(path: string): void {
    const claimed = this.#claimed.get(path);
    if (claimed === undefined) return;
    if (this.#table!.wishAt(claimed.slot) === 'claimed' && this.#lives) {
      const message = `QMP ${path}: domsched was stopped (SIGSTOP), and the process beside it is letting the machine go on`;
      throw new DomschedError('timeout', `${message}; try again`, { path, again: true });
    }
    this.#claimed.delete(path);
    this.#table!.clear(claimed.slot);
  }

  /** It may have died without our having heard. */
  get #lives(): boolean {
    const pid = this.#child?.pid;
    return pid !== undefined && hostProcess(pid) !== undefined;
  }

  #start(): ChildProcess {
    // Once per watchdog is enough, because nobody else can write there afterwards.
    tidy();
    const name = import.meta.url.endsWith('.ts') ? 'watchdog-process.ts' : 'watchdog-process.js';
    // It has its own session, so that Ctrl-C at our terminal does not end it with us.
    const file = fileURLToPath(new URL(name, import.meta.url));
    const { pid, started } = ownProcess();
    const child = spawn(
      process.execPath,
      [file, this.#owner, String(pid), String(started), String(this.lookMs)],
      {
        detached: true,
        stdio: ['pipe', 'ignore', 'ignore', this.#table!.descriptor],
      },
    );
    const forget = (): void => {
      if (this.#child !== child) return;
      this.#child = undefined;
      for (const { slot } of this.#claimed.values()) this.#table!.clear(slot);
      this.#claimed.clear();
      // It may have let those machines go on, so nothing is written under their pauses; the next ones are free of it.
      for (const { slot, machine } of this.#armed.values())
        this.#table!.change(slot, machine.pid, 'claimed', 'resumed');
    };
    child.on('error', forget);
    // Somebody killed it: the next pause starts another one.
    child.on('exit', forget);
    child.stdin!.on('error', forget);
    child.unref();
    (child.stdin as unknown as { unref(): void }).unref();
    return child;
  }
}

/** The only watchdog of this process, for all machines. */
export const watchdog = new Watchdog();
