import { type ChildProcess, spawn } from 'node:child_process';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { PauseTable } from './pause-table.ts';

/** A loaded host takes its time to start a process. */
const START_LIMIT_MS = 10_000;

/**
 * A small process beside ours that gives our pauses back when we die, however that happens: it notices by the end of
 * the pipe that connects us, which the kernel closes even after SIGKILL, and sleeps until then. Which domains we have
 * paused it finds in a memory that we share ({@link PauseTable}): a process that had to be told would have to be woken
 * in every pause, and on a dom0 with one CPU that takes longer than the pause.
 */
export class XenWatchdog {
  #child: ChildProcess | undefined;
  #ready: Promise<void> = Promise.resolve();
  #table: PauseTable | undefined;
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
    if (this.#child === undefined) this.#start();
    await this.#ready;
  }

  /** What is watched of one domain. @throws DomschedError `host-unreachable` */
  watch(domid: number): WatchedPause {
    this.#table ??= new PauseTable();
    return new WatchedPause(this.#table, domid);
  }

  /** Ends the process. Whatever is still noted then is given back, as on our death. */
  close(): void {
    this.#child?.stdin?.end();
    this.#child = undefined;
    this.#table?.close();
    this.#table = undefined;
  }

  #start(): void {
    this.#table ??= new PauseTable();
    const name = import.meta.url.endsWith('.ts') ? 'watchdog-process.ts' : 'watchdog-process.js';
    // Its own session, so that Ctrl-C at our terminal doesn't end it with us.
    const file = fileURLToPath(new URL(name, import.meta.url));
    const child = spawn(process.execPath, [file, ...this.#place], {
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore', this.#table.descriptor],
    });
    const forget = (): void => {
      if (this.#child === child) this.#child = undefined;
    };
    child.on('error', forget);
    // Someone killed it: the next pause starts another one, which finds all that is noted.
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
  }
}

/**
 * What is noted of one domain's pauses. The hypervisor counts pauses, so a pause of ours that nobody gives back would
 * outlive us, and one given back twice would take somebody else's. Therefore the order of what is said and what is
 * done:
 *
 * | said | when | on our death |
 * |---|---|---|
 * | `begin` | before the pause of a domain that runs; after that of one that was found paused | unpaused, if it is paused |
 * | `keep` | an edit is half written | stays paused, which is noted (`left-pause.ts`) |
 * | `end` | after the unpause; before it where the domain was found paused | nothing |
 */
export class WatchedPause {
  readonly #table: PauseTable;
  readonly #domid: number;
  #slot: number | undefined;

  constructor(table: PauseTable, domid: number) {
    this.#table = table;
    this.#domid = domid;
  }

  /** @throws DomschedError `refused` when too many domains are paused */
  begin(): void {
    this.#slot ??= this.#table.take();
    this.#table.set(this.#slot, this.#domid, 'resume');
  }

  keep(keep: boolean): void {
    if (this.#slot !== undefined) this.#table.set(this.#slot, this.#domid, keep ? 'keep' : 'resume');
  }

  end(): void {
    if (this.#slot !== undefined) this.#table.clear(this.#slot);
    this.#slot = undefined;
  }
}
