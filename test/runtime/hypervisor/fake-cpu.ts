import { once } from 'node:events';
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';

const SOURCE = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { readFileSync, readlinkSync } = require('node:fs');
  const libc = require(workerData.koffi).load('libc.so.6');
  const SIG_BLOCK = 0;
  const all = new Uint8Array(128).fill(0xff);
  libc.func('int pthread_sigmask(int how, const uint8_t *set, void *old)')(SIG_BLOCK, all, null);
  const until = new BigInt64Array(workerData.memory);
  parentPort.postMessage({
    thread: Number(readlinkSync('/proc/thread-self').split('/').at(-1)),
    blocked: /^SigBlk:\\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/thread-self/status', 'latin1'))[1],
  });
  for (;;) {
    Atomics.wait(until, 0, 0n);
    while (BigInt(Date.now()) < Atomics.load(until, 0));
    Atomics.store(until, 0, 0n);
  }
`;

/** Of the process, when a child of its ends: all test files are threads of one process, with many children. */
const SIGCHLD_BIT = 1n << 16n;

/**
 * A thread of this process that stands for a vCPU: it sleeps, whatever else the process does, unless it is told to run. A
 * signal for the process goes to any thread that does not block it, if the main one is in a handler (signal(7)), and wakes it.
 */
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
    const koffi = createRequire(import.meta.url).resolve('koffi');
    const worker = new Worker(SOURCE, { eval: true, workerData: { memory, koffi } });
    const [{ thread, blocked }] = await once(worker, 'message');
    if ((BigInt(`0x${blocked}`) & SIGCHLD_BIT) === 0n)
      throw new Error(`signals wake it: it blocks ${blocked}`);
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
