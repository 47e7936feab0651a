/**
 * A thread that looks at one word of a guest's memory over and over, and keeps when it last saw the guest's process run:
 * when the word was last another one than before, or when it last was the one it is told.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

/** Where to look in the file of a guest's memory, and for what; without `equals` every change counts. */
export interface WatchedWord {
  readonly file: string;
  readonly offset: number;
  readonly equals?: bigint;
}

const LOOK_MS = 0.1;
/** So long a target has run, and is seen not to run, before the next thing. */
export const STEADY_MS = 120;
/** A target that is let go runs again within this time, or the experiment ends. */
const AGAIN_MS = 30_000;

/** Ms on the clock that all threads of this process share. */
export function sharedNow(): number {
  return performance.timeOrigin + performance.now();
}

export class LastRun implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #last: Float64Array;

  constructor(word: WatchedWord) {
    const shared = new SharedArrayBuffer(8);
    this.#last = new Float64Array(shared);
    this.#worker = new Worker(new URL(import.meta.url), { workerData: { word, shared } });
  }

  /** By {@link sharedNow}; 0 before it was seen to run. */
  get ms(): number {
    return this.#last[0]!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}

/** Waits until it is seen to run after some moment. @throws Error at the limit */
export async function ran(seen: LastRun, since: number): Promise<void> {
  for (const end = sharedNow() + AGAIN_MS; seen.ms <= since; await sleep(1))
    if (sharedNow() > end) throw new Error('what was let go does not run');
}

if (!isMainThread) {
  const { word, shared } = workerData as { word: WatchedWord; shared: SharedArrayBuffer };
  const last = new Float64Array(shared);
  const waits = new Int32Array(new SharedArrayBuffer(4));
  const bytes = Buffer.alloc(8);
  const file = openSync(word.file, 'r');
  parentPort?.once('close', () => closeSync(file));
  for (let before: bigint | undefined; ; ) {
    readSync(file, bytes, 0, 8, word.offset);
    const now = bytes.readBigUInt64LE();
    if (word.equals === undefined ? before !== undefined && now !== before : now === word.equals)
      last[0] = sharedNow();
    before = now;
    Atomics.wait(waits, 0, 0, LOOK_MS);
  }
}
