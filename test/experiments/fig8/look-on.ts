import { closeSync, openSync, readSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import type { Fig8Sample } from './judge.ts';
import { Stretches } from './spans.ts';

const LOOK_MS = 0.5;
const waits = new Int32Array(new SharedArrayBuffer(4));

/** A process of a guest, looked at in the guest's memory while it runs, without domsched and without a pause. */
export interface SeenProcess {
  readonly process: string;
  /** Whether it has the CPU. */
  runs(): boolean;
  /** Whether it is in a run queue: it has the CPU or wants it. */
  wants(): boolean;
}

/** Reads words of a guest's memory, which is a file, by their place in it. */
export class MemoryWords implements Disposable {
  readonly #file: number;
  readonly #bytes = Buffer.alloc(8);

  constructor(file: string) {
    this.#file = openSync(file, 'r');
  }

  /** @param size of the word in bytes */
  at(place: number, size = 8): () => bigint {
    return () => {
      readSync(this.#file, this.#bytes, 0, 8, place);
      return BigInt.asUintN(8 * size, this.#bytes.readBigUInt64LE());
    };
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

/** When a process ran, or wanted to, in ms from the first look. */
export type SeenStretch = Omit<Fig8Sample, 'intervalMs' | 'sentinelMs'>;

/** Looks over and over. @returns when each ran, and wanted to */
export async function lookOn(seen: readonly SeenProcess[], ms: number): Promise<SeenStretch[]> {
  const watched = seen.map((one) => ({ one, ran: new Stretches(), wanted: new Stretches() }));
  const start = performance.now();
  let before = 0;
  for (let looks = 1; before < ms; looks++) {
    const now = performance.now() - start;
    for (const { one, ran, wanted } of watched) {
      const runs = one.runs();
      ran.look(runs, before, now);
      wanted.look(runs || one.wants(), before, now);
    }
    before = now;
    Atomics.wait(waits, 0, 0, LOOK_MS);
    // The guests' consoles want to be read.
    if (looks % 50 === 0) await setImmediate();
  }
  return watched.flatMap(({ one: { process: name }, ran, wanted }) => [
    ...ran.list.map(({ from, to }) => ({ process: name, did: 'ran' as const, from, to })),
    ...wanted.list.map(({ from, to }) => ({ process: name, did: 'wanted' as const, from, to })),
  ]);
}
