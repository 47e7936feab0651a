import type { Process } from '../guest/process.ts';

/** Looks at no more threads of a process than this in one pause: the guest must not decide how long a pause takes. */
export const THREADS_PER_PAUSE = 256;

/**
 * Spreads a process of many threads over several pauses. Threads that waited longest come first; a finished one is not
 * looked at again; a new one gets its turn, because each pause reads the list of threads. A smaller process is handled
 * as a whole each time.
 */
export class ThreadTurns {
  /** The pause in which each thread was last looked at. */
  readonly #looked = new Map<string, number>();
  readonly #done = new Set<string>();
  #pause = 0;
  #parts = 1;

  /** Least number of pauses; 1 for a process that is handled as a whole. */
  get parts(): number {
    return this.#parts;
  }

  /** Number of finished threads. */
  get done(): number {
    return this.#done.size;
  }

  /** @returns the threads to look at now, and how many must wait for another pause */
  choose(threads: readonly Process[]): { now: readonly Process[]; waiting: number } {
    if (threads.length <= THREADS_PER_PAUSE) return { now: threads, waiting: 0 };
    this.#parts = Math.max(this.#parts, Math.ceil(threads.length / THREADS_PER_PAUSE));
    this.#pause += 1;
    const open: { thread: Process; key: string; last: number }[] = [];
    for (const thread of threads) {
      const key = keyOf(thread);
      if (!this.#done.has(key)) open.push({ thread, key, last: this.#looked.get(key) ?? 0 });
    }
    const now = open.sort((a, b) => a.last - b.last).slice(0, THREADS_PER_PAUSE);
    for (const { key } of now) this.#looked.set(key, this.#pause);
    return { now: now.map(({ thread }) => thread), waiting: open.length - now.length };
  }

  /** Marks a thread as finished. */
  finish(thread: Process): void {
    this.#done.add(keyOf(thread));
  }
}

function keyOf({ pid, address, startTimeNs }: Process): string {
  return `${pid} ${address} ${startTimeNs}`;
}
