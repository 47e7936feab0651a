import path from 'node:path';
import koffi from 'koffi';
import { libraryOfC } from './c-program.ts';

function load() {
  const library = koffi.load(libraryOfC(path.join(import.meta.dirname, 'fake-cpu.c')));
  return {
    start: library.func('void *fake_cpu_start()') as () => unknown,
    tid: library.func('int fake_cpu_tid(void *cpu)') as (cpu: unknown) => number,
    run: library.func('void fake_cpu_run(void *cpu, int ms)') as (cpu: unknown, ms: number) => void,
    stop: library.func('void fake_cpu_stop(void *cpu)') as (cpu: unknown) => void,
  };
}

/**
 * A thread of this process that stands for a vCPU: it sleeps, whatever else the process does, unless it is told to run. It
 * is none of Node's, which the engine wakes for its own work, and which get the signals of all test files: those are threads
 * of one process.
 */
export class FakeCpu implements Disposable {
  readonly #calls = load();
  readonly #cpu = this.#calls.start();
  readonly thread: number;

  constructor() {
    if (this.#cpu === null) throw new Error('no thread can be made');
    this.thread = this.#calls.tid(this.#cpu);
  }

  /** Keeps it running for so long from now, and this thread waiting. */
  run(ms: number): void {
    this.#calls.run(this.#cpu, ms);
  }

  [Symbol.dispose](): void {
    this.#calls.stop(this.#cpu);
  }
}
