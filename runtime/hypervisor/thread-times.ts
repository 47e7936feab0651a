import { closeSync, openSync, readSync } from 'node:fs';
import type { HostClock, VcpuTime } from './types.ts';

/** Threads may come and go (CPUs are plugged in): they are listed again after this time, in ms. */
const LISTED_MS = 10_000;
/** Three decimal numbers of 64 bits. */
const ROOM = 64;

/**
 * Reads how long the threads of a machine's CPUs ran and waited, from `/proc/PID/task/TID/schedstat`
 * (Documentation/scheduler/sched-stats.rst). The files stay open: reading one again takes some µs.
 */
export class ThreadTimes implements HostClock {
  readonly #pid: number;
  readonly #threads: () => readonly number[];
  readonly #now: () => number;
  readonly #bytes = Buffer.alloc(ROOM);
  readonly #files = new Map<number, number>();
  #listedMs = -Infinity;

  /** @param threads lists the threads, in the order of the guest's CPUs */
  constructor(pid: number, threads: () => readonly number[], now: () => number = () => performance.now()) {
    this.#pid = pid;
    this.#threads = threads;
    this.#now = now;
  }

  read(): readonly VcpuTime[] | undefined {
    if (this.#now() - this.#listedMs >= LISTED_MS && !this.#list()) return undefined;
    const times: VcpuTime[] = [];
    for (const file of this.#files.values()) {
      const time = this.#readOne(file);
      // A thread has ended: list them again at the next look.
      if (time === undefined) this.#listedMs = -Infinity;
      if (time === undefined) return undefined;
      times.push(time);
    }
    return times;
  }

  close(): void {
    for (const file of this.#files.values()) closeSync(file);
    this.#files.clear();
    this.#listedMs = -Infinity;
  }

  #list(): boolean {
    this.close();
    try {
      for (const thread of this.#threads())
        this.#files.set(thread, openSync(`/proc/${this.#pid}/task/${thread}/schedstat`, 'r'));
    } catch {
      // A kernel without CONFIG_SCHED_INFO, or a thread that has just ended.
      this.close();
    }
    if (this.#files.size === 0) return false;
    this.#listedMs = this.#now();
    return true;
  }

  #readOne(file: number): VcpuTime | undefined {
    try {
      const length = readSync(file, this.#bytes, 0, ROOM, 0);
      const [ran, waited] = this.#bytes.toString('latin1', 0, length).split(' ').map(Number);
      return { ranNs: ran!, waitedNs: waited! };
    } catch {
      return undefined;
    }
  }
}
