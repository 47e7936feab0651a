import type { Process } from '../guest/process.ts';

/** Threads of one process that are looked at in one pause: what a pause takes must not be the guest's choice. */
export const THREADS_PER_PAUSE = 256;

/**
 * A process of many threads is done with a part of it at a time, each in a pause of its own: those first that were not
 * looked at for longest. A thread that was found done is not looked at again; one that starts meanwhile comes in turn,
 * since the list of threads is read in each pause. A smaller process is looked at as a whole each time.
 */
export class ThreadTurns {
  /** The pause in which a thread was looked at last. */
  readonly #looked = new Map<string, number>();
  readonly #done = new Set<string>();
  #pause = 0;
  #parts = 1;

  /** How many pauses it takes at least; 1 for a process that is looked at as a whole. */
  get parts(): number {
    return this.#parts;
  }

  /** Threads that were found done so far. */
  get done(): number {
    return this.#done.size;
  }

  /** @returns whom to look at now, and how many have to wait for another pause */
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

  /** There is nothing to do for a thread any more. */
  finish(thread: Process): void {
    this.#done.add(keyOf(thread));
  }
}

function keyOf({ pid, address, startTimeNs }: Process): string {
  return `${pid} ${address} ${startTimeNs}`;
}
