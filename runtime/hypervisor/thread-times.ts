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
  /** What the files had at the last reading. */
  last: { readonly ranNs: number; readonly ready: boolean } | undefined;
  /** How long it has waited, in ns. */
  waitedNs: number;
}

/**
 * Reads how long the threads of a machine's CPUs ran and waited, from `/proc/PID/task/TID/schedstat`
 * (Documentation/scheduler/sched-stats.rst). The files stay open: reading one again takes some µs. `schedstat` has a wait
 * only when it is over, so a thread that was ready at two readings waited in between when it did not run.
 */
export class ThreadTimes implements HostClock {
  readonly #pid: number;
  readonly #threads: () => readonly number[];
  readonly #now: () => number;
  readonly #bytes = Buffer.alloc(ROOM);
  #files: ThreadFiles[] = [];
  #open: number[] = [];
  #listed: readonly number[] = [];
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
    this.#listed = [];
    this.#listedMs = -Infinity;
  }

  #list(nowMs: number): boolean {
    const threads = this.#threads();
    if (threads.length > 0 && `${threads}` === `${this.#listed}`) {
      this.#listedMs = nowMs;
      return true;
    }
    this.close();
    this.#listed = threads;
    try {
      for (const thread of threads) {
        const folder = `/proc/${this.#pid}/task/${thread}`;
        // A kernel without CONFIG_SCHED_INFO does not have the first.
        const schedstat = this.#keep(`${folder}/schedstat`);
        const stat = this.#keep(`${folder}/stat`);
        this.#files.push({ tid: thread, schedstat, stat, last: undefined, waitedNs: 0 });
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
    const ready = /^\d+ \(.*\) R/s.test(this.#text(files.stat));
    const { last } = files;
    // The sum stays that of `schedstat`, which is only told later.
    const waiting = last?.ready && ready ? files.waitedNs + elapsedNs - (ranNs - last.ranNs) : 0;
    files.waitedNs = Math.max(files.waitedNs, waitedNs, waiting);
    files.last = { ranNs, ready };
    return { ranNs, waitedNs: files.waitedNs, tid: files.tid };
  }

  #text(file: number): string {
    const length = readSync(file, this.#bytes, 0, ROOM, 0);
    return this.#bytes.toString('latin1', 0, length);
  }
}
