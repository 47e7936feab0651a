import { type ChildProcess, spawn } from 'node:child_process';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ownProcess } from '../../host-process.ts';
import { PauseTable } from '../pause-table.ts';

/** A loaded host may take long to start a process. */
const START_LIMIT_MS = 10_000;

/**
 * A small process beside ours that gives our pauses back if we die in any way or stand still for long (SIGSTOP). It
 * notices our death by the end of the pipe that connects us, which the kernel closes even after SIGKILL, and looks once
 * a second whether we are stopped. It finds the domains we have paused in shared memory ({@link PauseTable}): waking it
 * in every pause to tell it would take longer than the pause on a dom0 with one CPU.
 */
export class XenWatchdog {
  #child: ChildProcess | undefined;
  #ready: Promise<void> = Promise.resolve();
  #watches = false;
  #table: PauseTable | undefined;
  readonly #place: readonly string[];

  /** @param place arguments for the process: Xen's version, root of the file system, directory of libraries */
  constructor(place: readonly string[] = []) {
    this.#place = place;
  }

  /**
   * Resolves when the process watches, so that its start takes no time from a pause. If it fails to start, our pauses
   * are still given back on every way out except SIGKILL.
   */
  async ready(): Promise<void> {
    if (this.#child === undefined) this.#start();
    await this.#ready;
  }

  /** Whether it watches already, so that nothing has to wait. */
  get watches(): boolean {
    return this.#watches && this.#child !== undefined;
  }

  /** Creates the record of one domain's pauses. @throws DomschedError `host-unreachable` */
  watch(domid: number): WatchedPause {
    this.#table ??= new PauseTable();
    return new WatchedPause(this.#table, domid);
  }

  /** Ends the process, which gives back every pause still noted, as on our death. */
  close(): void {
    this.#child?.stdin?.end();
    this.#child = undefined;
    this.#table?.close();
    this.#table = undefined;
  }

  #start(): void {
    this.#table ??= new PauseTable();
    this.#watches = false;
    const name = import.meta.url.endsWith('.ts') ? 'watchdog-process.ts' : 'watchdog-process.js';
    // It has its own session, so that Ctrl-C at our terminal does not end it with us.
    const file = fileURLToPath(new URL(name, import.meta.url));
    const { pid, started } = ownProcess();
    const child = spawn(process.execPath, [file, String(pid), String(started), ...this.#place], {
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore', this.#table.descriptor],
    });
    const forget = (): void => {
      if (this.#child === child) this.#child = undefined;
    };
    child.on('error', forget);
    // Somebody killed it: the next pause starts another one, which finds everything noted.
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
      this.#watches = true;
      // From now on it must not keep our program running.
      child.unref();
      for (const stream of [child.stdin, child.stdout]) (stream as unknown as { unref(): void }).unref();
    });
    this.#child = child;
  }
}

/**
 * Record of one domain's pauses. The hypervisor counts pauses: one of ours that is not given back would outlive us, and
 * one given back twice would take somebody else's. So the order of noting and doing matters:
 *
 * | noted | when | on our death |
 * |---|---|---|
 * | `begin` | before the pause of a domain that runs; after that of one that was found paused | unpaused, if it is paused |
 * | `keep` | an edit is half written | stays paused, which is noted (`left-pause.ts`) |
 * | `end` | after the unpause; before it where the domain was found paused | nothing |
 */
export class WatchedPause {
  readonly #table: PauseTable;
  readonly #domid: number;
  #slot: number | undefined;
  #wish: 'resume' | 'return' = 'resume';

  constructor(table: PauseTable, domid: number) {
    this.#table = table;
    this.#domid = domid;
  }

  /** @throws DomschedError `refused` when too many domains are paused */
  begin(foundPaused: boolean): void {
    this.#slot ??= this.#table.take();
    this.#wish = foundPaused ? 'return' : 'resume';
    this.#table.set(this.#slot, this.#domid, this.#wish);
  }

  /** @throws DomschedError `edit-conflict` when we stood still for so long that the process has let the domain go on */
  keep(keep: boolean): void {
    if (this.#slot === undefined) return;
    this.#table.keep(this.#slot, this.#domid, this.#wish, keep);
  }

  /** Whether the process has ended this pause, or is about to, because we stood still. */
  get isLost(): boolean {
    const wish = this.#slot === undefined ? undefined : this.#table.wishAt(this.#slot);
    return wish === 'claimed' || wish === 'resumed';
  }

  end(): void {
    if (this.#slot !== undefined) this.#table.clear(this.#slot);
    this.#slot = undefined;
  }
}
