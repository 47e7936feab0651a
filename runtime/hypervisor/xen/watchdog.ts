import { type ChildProcess, spawn } from 'node:child_process';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { hostProcess, ownProcess } from '../../host-process.ts';
import { makeTableFile, removeTableFile } from '../pause-files.ts';
import { PauseTable, type PauseWish, readPauses } from '../pause-table.ts';

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

  readonly #folder: string;

  /**
   * @param place arguments for the process: Xen's version, root of the file system, directory of libraries
   * @param folder where our pauses are noted, for those who come after us if we both die
   */
  constructor(place: readonly string[], folder: string) {
    this.#place = place;
    this.#folder = folder;
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
    return new WatchedPause(this.#pauses(), domid, () => this.#lives);
  }

  #pauses(): PauseTable {
    this.#table ??= new PauseTable(makeTableFile(this.#folder, 'xen'));
    return this.#table;
  }

  /** It may have died without our having heard. */
  get #lives(): boolean {
    const pid = this.#child?.pid;
    return pid !== undefined && hostProcess(pid) !== undefined;
  }

  /** Ends the process, which gives back every pause still noted, as on our death. */
  close(): void {
    const { descriptor } = this.#table ?? {};
    // Without the process, a pause that could not be ended stays in the file, for the next of us.
    if (!this.#lives && descriptor !== undefined && readPauses(descriptor).length === 0)
      removeTableFile(descriptor);
    this.#child?.stdin?.end();
    this.#child = undefined;
    this.#table?.close();
    this.#table = undefined;
  }

  #start(): void {
    const { descriptor } = this.#pauses();
    this.#watches = false;
    const name = import.meta.url.endsWith('.ts') ? 'watchdog-process.ts' : 'watchdog-process.js';
    // It has its own session, so that Ctrl-C at our terminal does not end it with us.
    const file = fileURLToPath(new URL(name, import.meta.url));
    const { pid, started } = ownProcess();
    const child = spawn(process.execPath, [file, String(pid), String(started), ...this.#place], {
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore', descriptor],
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
 * | `stands` | once it stands | a pause that the process beside us leaves too, is known by that time |
 * | `keep` | an edit is half written | stays paused, which is noted (`left-pause.ts`) |
 * | `end` | after the unpause; before it where the domain was found paused | nothing |
 */
export class WatchedPause {
  readonly #table: PauseTable;
  readonly #domid: number;
  readonly #isWatched: () => boolean;
  #slot: number | undefined;
  #last = 0;
  #wish: 'resume' | 'return' = 'resume';

  /** @param isWatched whether the process beside us lives */
  constructor(table: PauseTable, domid: number, isWatched: () => boolean) {
    this.#table = table;
    this.#domid = domid;
    this.#isWatched = isWatched;
  }

  /**
   * @param cpuTimeNs of the domain now
   * @throws DomschedError `refused` when too many domains are paused
   */
  begin(foundPaused: boolean, cpuTimeNs: bigint): void {
    this.#slot ??= this.#last = this.#table.take(this.#last);
    this.#wish = foundPaused ? 'return' : 'resume';
    this.#table.stands(this.#slot, cpuTimeNs);
    this.#table.set(this.#slot, this.#domid, this.#wish);
  }

  /** Notes the CPU time at which the domain stands. */
  stands(cpuTimeNs: bigint): void {
    if (this.#slot !== undefined) this.#table.stands(this.#slot, cpuTimeNs);
  }

  /** @throws DomschedError `edit-conflict` when we stood still for so long that the process has let the domain go on */
  keep(keep: boolean): void {
    if (this.#slot === undefined) return;
    this.#table.keep(this.#slot, this.#domid, this.#wish, keep);
  }

  /** Whether the process has ended this pause, because we stood still. */
  get isLost(): boolean {
    return this.#now === 'resumed';
  }

  /** Whether the process is about to end it, or has died before it could say that it did. */
  get isClaimed(): boolean {
    return this.#now === 'claimed';
  }

  /** Whether the process ends it, and we must not. */
  get isTaken(): boolean {
    return this.isLost || (this.isClaimed && this.#isWatched());
  }

  get #now(): PauseWish | undefined {
    return this.#slot === undefined ? undefined : this.#table.wishAt(this.#slot);
  }

  end(): void {
    if (this.#slot !== undefined) this.#table.clear(this.#slot);
    this.#slot = undefined;
  }
}
