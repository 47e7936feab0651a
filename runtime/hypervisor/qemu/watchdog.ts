import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import type { HostProcess } from '../../host-process.ts';
import { markPause, tidy, unmarkPause } from './pause-mark.ts';

/**
 * A small process beside ours that knows which machines we have paused and resumes them if we die in any way. It
 * notices our death by the end of the pipe that connects us, which the kernel closes even after SIGKILL.
 *
 * Protocol, one line each: `+PID-STARTED PATH` paused by us, `!…` stay paused on our death, `-…` resumed.
 */
export class Watchdog {
  #child: ChildProcess | undefined;
  readonly #armed = new Map<string, HostProcess>();
  readonly #owner = randomUUID();

  /** Call before pausing. */
  arm(path: string, machine: HostProcess): void {
    this.#child ??= this.#start();
    markPause(machine, this.#owner);
    this.#armed.set(path, machine);
    this.#send('+', path, machine);
  }

  /** Says whether an edit is being written, so that the machine at `path` must stay paused if we die now. */
  keep(path: string, keep: boolean): void {
    const machine = this.#armed.get(path);
    if (machine !== undefined) this.#send(keep ? '!' : '+', path, machine);
  }

  /** Call after resuming. */
  disarm(path: string): void {
    const machine = this.#armed.get(path);
    if (machine === undefined) return;
    this.#armed.delete(path);
    this.#send('-', path, machine);
    unmarkPause(machine, this.#owner);
  }

  /** Ends the process. Armed machines are forgotten, not resumed. */
  close(): void {
    for (const [path, machine] of this.#armed) this.#send('-', path, machine);
    this.#armed.clear();
    this.#child?.stdin?.end();
    this.#child = undefined;
  }

  #send(what: '+' | '!' | '-', path: string, { pid, started }: HostProcess): void {
    this.#child ??= this.#start();
    this.#child.stdin!.write(`${what}${pid}-${started} ${path}\n`);
  }

  #start(): ChildProcess {
    // Once per watchdog is enough, because nobody else can write there afterwards.
    tidy();
    const name = import.meta.url.endsWith('.ts') ? 'watchdog-process.ts' : 'watchdog-process.js';
    // It has its own session, so that Ctrl-C at our terminal does not end it with us.
    const child = spawn(process.execPath, [fileURLToPath(new URL(name, import.meta.url)), this.#owner], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const forget = (): void => {
      if (this.#child === child) this.#child = undefined;
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
