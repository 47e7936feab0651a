/** Who runs in the domains of a Xen, seen from outside all of it: in the memory of the machine that Xen runs on. */
import path from 'node:path';
import { GuestCounter } from '../../live/guest-counters.ts';
import type { XenTestDomain } from '../../live/xen-domain.ts';
import { MemoryWords, type SeenProcess } from '../fig8/look-on.ts';
import type { ProcessPlace } from './places-in-dom0.ts';
import type { ExperimentXen } from './xen.ts';

/** A burner that has counted in the last so many ms has run: it counts some times in each ms in which it runs. */
const COUNTS_WITHIN_MS = 3;

export class SeenXen implements Disposable {
  readonly #machine: ExperimentXen;
  readonly #words: MemoryWords;
  readonly #counters: GuestCounter[] = [];

  constructor(machine: ExperimentXen) {
    this.#machine = machine;
    this.#words = new MemoryWords(path.join(machine.xen.directory, 'memory'));
  }

  /**
   * A program that counts for as long as it computes: whether it really runs, which its own kernel does not know while
   * Xen has another domain on the CPU.
   */
  counting(name: string): SeenProcess {
    const counter = GuestCounter.open(this.#machine.xen.machine, name);
    this.#counters.push(counter);
    let before = counter.read();
    let lastMs = Number.NEGATIVE_INFINITY;
    const runs = () => {
      const now = counter.read();
      if (now !== before) lastMs = performance.now();
      before = now;
      return performance.now() - lastMs < COUNTS_WITHIN_MS;
    };
    return { process: name, runs, wants: () => false };
  }

  /** Processes of a domain, by its kernel's word: whether each wants a CPU or has it. */
  async wanting(domain: XenTestDomain, names: readonly string[]): Promise<SeenProcess[]> {
    const text = await this.#machine.node('test/experiments/xen/places-in-dom0.ts', domain.name, ...names);
    return (JSON.parse(text) as ProcessPlace[]).map(({ process, onQueue }) => {
      const word = this.#words.at(onQueue.at, onQueue.size);
      return { process, runs: () => false, wants: () => word() !== 0n };
    });
  }

  [Symbol.dispose](): void {
    for (const counter of this.#counters) counter[Symbol.dispose]();
    this.#words[Symbol.dispose]();
  }
}
