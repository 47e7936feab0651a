import { type ChildProcess, spawn } from 'node:child_process';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** A loaded host takes its time to start a process. */
const START_LIMIT_MS = 10_000;

/**
 * A small process beside ours that knows which domains we have paused and gives our pauses back when we die, however
 * that happens: it notices by the end of the pipe that connects us, which the kernel closes even after SIGKILL.
 *
 * The hypervisor counts pauses, so a pause of ours that nobody gives back would outlive us, and one given back twice
 * would take somebody else's. Therefore the order of what is said and what is done:
 *
 * A KEY is the domain's id and, after a slash, what tells our pauses of it apart.
 *
 * | line | said | on our death |
 * |---|---|---|
 * | `?KEY` | before the pause of a domain that runs | unpaused if it is paused: we died in between, before or after |
 * | `+KEY` | after the pause | unpaused |
 * | `!KEY` | an edit is half written | stays paused, which is noted (`left-pause.ts`) |
 * | `-KEY` | after the unpause; before it where the domain was found paused | nothing |
 */
export class XenWatchdog {
  #child: ChildProcess | undefined;
  #ready: Promise<void> = Promise.resolve();
  readonly #place: readonly string[];

  /** @param place arguments for the process: version of the hypervisor, root of the file system, folder of libraries */
  constructor(place: readonly string[] = []) {
    this.#place = place;
  }

  /**
   * Resolves when the process watches: its start takes CPU time, and none of a pause. Should it fail to start, what is
   * paused is still given back on every way out but SIGKILL.
   */
  async ready(): Promise<void> {
    this.#start();
    await this.#ready;
  }

  /** @param foundPaused then a death in between leaves the domain as it was found */
  beforePause(key: string, foundPaused: boolean): void {
    if (!foundPaused) this.#send(`?${key}`);
  }

  paused(key: string): void {
    this.#send(`+${key}`);
  }

  keep(key: string, keep: boolean): void {
    this.#send(`${keep ? '!' : '+'}${key}`);
  }

  forget(key: string): void {
    if (this.#child !== undefined) this.#send(`-${key}`);
  }

  #send(line: string): void {
    this.#start().stdin!.write(`${line}\n`);
  }

  #start(): ChildProcess {
    if (this.#child !== undefined) return this.#child;
    const name = import.meta.url.endsWith('.ts') ? 'watchdog-process.ts' : 'watchdog-process.js';
    // Its own session, so that Ctrl-C at our terminal doesn't end it with us.
    const file = fileURLToPath(new URL(name, import.meta.url));
    const child = spawn(process.execPath, [file, ...this.#place], {
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const forget = (): void => {
      if (this.#child === child) this.#child = undefined;
    };
    child.on('error', forget);
    // Someone killed it: the next pause starts another one.
    child.on('exit', forget);
    child.stdin!.on('error', forget);
    const watches = new Promise<void>((resolve) => {
      for (const event of ['error', 'exit'] as const) child.once(event, () => resolve());
      child.stdout!.once('data', () => resolve());
    });
    const limit = new AbortController();
    this.#ready = Promise.race([
      watches,
      sleep(START_LIMIT_MS, undefined, { signal: limit.signal }).catch(() => {}),
    ]).finally(() => {
      limit.abort();
      // From here on it must not keep our program from ending.
      child.unref();
      for (const stream of [child.stdin, child.stdout]) (stream as unknown as { unref(): void }).unref();
    });
    this.#child = child;
    return child;
  }
}
