import { closeSync, openSync, readSync } from 'node:fs';
import type { HostClock, VcpuTime } from './types.ts';

/** Threads may come and go (CPUs are plugged in): they are listed again after this time, in ms. */
const LISTED_MS = 10_000;
/** Three decimal numbers of 64 bits; of `stat` the state comes after a name of at most 64 bytes. */
const ROOM = 128;

interface ThreadFiles {
  readonly tid: number;
  readonly schedstat: number;
  readonly stat: number;
  last: VcpuTime | undefined;
  /** How long the thread is known to wait that `schedstat` does not have yet, in ns. */
  pendingNs: number;
}

/**
 * Reads how long the threads of a machine's CPUs ran and waited, from `/proc/PID/task/TID/schedstat`
 * (Documentation/scheduler/sched-stats.rst). The files stay open: reading one again takes some µs. `schedstat` has a wait
 * only when it is over, so for a thread that seems to stand still its state decides whether it waits.
 */
export class ThreadTimes implements HostClock {
  readonly #pid: number;
  readonly #threads: () => readonly number[];
  readonly #now: () => number;
  readonly #bytes = Buffer.alloc(ROOM);
  #files: ThreadFiles[] = [];
  #open: number[] = [];
  #listedMs = -Infinity;
  #readMs: number | undefined;

  /** @param threads lists the threads, in the order of the guest's CPUs */
  constructor(pid: number, threads: () => readonly number[], now: () => number = () => performance.now()) {
    this.#pid = pid;
    this.#threads = threads;
    this.#now = now;
  }

  read(): readonly VcpuTime[] | undefined {
    const nowMs = this.#now();
    if (nowMs - this.#listedMs >= LISTED_MS && !this.#list(nowMs)) return undefined;
    const elapsedNs = (nowMs - (this.#readMs ?? nowMs)) * 1e6;
    this.#readMs = nowMs;
    try {
      return this.#files.map((files) => this.#readOne(files, elapsedNs));
    } catch {
      // A thread has ended: list them again at the next look.
      this.close();
      return undefined;
    }
  }

  close(): void {
    for (const file of this.#open) closeSync(file);
    this.#open = [];
    this.#files = [];
    this.#listedMs = -Infinity;
  }

  #list(nowMs: number): boolean {
    this.close();
    try {
      for (const thread of this.#threads()) {
        const folder = `/proc/${this.#pid}/task/${thread}`;
        // A kernel without CONFIG_SCHED_INFO does not have the first.
        const schedstat = this.#keep(`${folder}/schedstat`);
        const stat = this.#keep(`${folder}/stat`);
        this.#files.push({ tid: thread, schedstat, stat, last: undefined, pendingNs: 0 });
      }
    } catch {
      this.close();
    }
    if (this.#files.length === 0) return false;
    this.#listedMs = nowMs;
    return true;
  }

  #keep(name: string): number {
    const file = openSync(name, 'r');
    this.#open.push(file);
    return file;
  }

  #readOne(files: ThreadFiles, elapsedNs: number): VcpuTime {
    const [ranNs, waitedNs] = this.#text(files.schedstat).split(' ').map(Number) as [number, number];
    const { last } = files;
    if (last?.ranNs !== ranNs || last.waitedNs !== waitedNs) files.pendingNs = 0;
    else if (/^\d+ \(.*\) R/s.test(this.#text(files.stat))) files.pendingNs += elapsedNs;
    files.last = { ranNs, waitedNs };
    return { ranNs, waitedNs: waitedNs + files.pendingNs, tid: files.tid };
  }

  #text(file: number): string {
    const length = readSync(file, this.#bytes, 0, ROOM, 0);
    return this.#bytes.toString('latin1', 0, length);
  }
}
