import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

const SOURCE = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { readlinkSync } = require('node:fs');
  const until = new BigInt64Array(workerData);
  parentPort.postMessage(Number(readlinkSync('/proc/thread-self').split('/').at(-1)));
  for (;;) {
    Atomics.wait(until, 0, 0n);
    while (BigInt(Date.now()) < Atomics.load(until, 0));
    Atomics.store(until, 0, 0n);
  }
`;

/** A thread of this process that stands for a vCPU: it sleeps, whatever else the process does, unless it is told to run. */
export class FakeCpu implements AsyncDisposable {
  readonly thread: number;
  readonly #worker: Worker;
  readonly #until: BigInt64Array;

  private constructor(worker: Worker, until: BigInt64Array, thread: number) {
    this.#worker = worker;
    this.#until = until;
    this.thread = thread;
  }

  static async start(): Promise<FakeCpu> {
    const memory = new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT);
    const worker = new Worker(SOURCE, { eval: true, workerData: memory });
    const [thread] = await once(worker, 'message');
    return new FakeCpu(worker, new BigInt64Array(memory), thread);
  }

  /** Keeps it running for so long from now, and this thread waiting. */
  run(ms: number): void {
    Atomics.store(this.#until, 0, BigInt(Date.now() + ms));
    Atomics.notify(this.#until, 0);
    while (Atomics.load(this.#until, 0) !== 0n)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}
