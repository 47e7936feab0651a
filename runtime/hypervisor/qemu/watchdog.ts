import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { markPause, unmarkPause } from './pause-mark.ts';

/**
 * A small process beside ours that knows which machines we have paused and resumes them when we die, however that
 * happens: it notices by the end of the pipe that connects us, which the kernel closes even after SIGKILL.
 *
 * Protocol, one line each: `+PATH` paused by us, `!PATH` stay paused on our death, `-PATH` resumed.
 */
export class Watchdog {
  #child: ChildProcess | undefined;
  readonly #armed = new Set<string>();
  readonly #owner = randomUUID();

  /** Call before pausing. */
  arm(path: string): void {
    markPause(path, this.#owner);
    this.#armed.add(path);
    this.#send(`+${path}`);
  }

  /** An edit is being written: `path` has to stay paused should we die now. */
  keep(path: string, keep: boolean): void {
    if (this.#armed.has(path)) this.#send(`${keep ? '!' : '+'}${path}`);
  }

  /** Call after resuming. */
  disarm(path: string): void {
    if (!this.#armed.delete(path)) return;
    this.#send(`-${path}`);
    unmarkPause(path, this.#owner);
  }

  /** Ends the process; what is armed is forgotten, not resumed. */
  close(): void {
    for (const path of this.#armed) this.#send(`-${path}`);
    this.#armed.clear();
    this.#child?.stdin?.end();
    this.#child = undefined;
  }

  #send(line: string): void {
    this.#child ??= this.#start();
    this.#child.stdin!.write(`${line}\n`);
  }

  #start(): ChildProcess {
    const name = import.meta.url.endsWith('.ts') ? 'watchdog-process.ts' : 'watchdog-process.js';
    // Its own session, so that Ctrl-C at our terminal doesn't end it with us.
    const child = spawn(process.execPath, [fileURLToPath(new URL(name, import.meta.url)), this.#owner], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const forget = (): void => {
      if (this.#child === child) this.#child = undefined;
    };
    child.on('error', forget);
    // Someone killed it: the next pause starts another one.
    child.on('exit', forget);
    child.stdin!.on('error', forget);
    child.unref();
    (child.stdin as unknown as { unref(): void }).unref();
    return child;
  }
}

/** One for the process, whichever machines it handles. */
export const watchdog = new Watchdog();
