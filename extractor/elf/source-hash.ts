import { fstatSync } from 'node:fs';
import type { Worker } from 'node:worker_threads';
import { ExtractError } from '../error.ts';
import { moduleUrl } from '../installation.ts';
import { type FileSource, fileError } from './byte-source.ts';
import { fingerprint, recallHash, rememberHash } from './hash-memory.ts';

/** Below this a worker thread costs more than it saves. */
const INLINE_SIZE = 8 << 20;
const CHUNK = 1 << 20;

/**
 * SHA-256 of a file, as sha256sum prints it. A debug vmlinux takes 0.4 s and more, several times what an
 * extraction takes; so it is computed in a worker thread beside the extraction, and remembered for the file as
 * it is (see hash-memory.ts).
 */
export class SourceHash implements AsyncDisposable {
  readonly #source: FileSource;
  #worker: Worker | null = null;
  #result: Promise<string> | null = null;
  #closed = false;

  constructor(source: FileSource) {
    this.#source = source;
  }

  /** Starts on the first call; later ones share the result. */
  digest(): Promise<string> {
    if (!this.#result) {
      this.#result = this.#compute();
      // Whoever started it early may fail before waiting for it.
      this.#result.catch(() => {});
    }
    return this.#result;
  }

  /** Stops the worker; must be done before the file is closed under it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#worker?.terminate();
  }

  async #compute(): Promise<string> {
    const source = this.#source;
    if (source.size < INLINE_SIZE) {
      const { createHash } = await import('node:crypto');
      const hash = createHash('sha256');
      for (let at = 0; at < source.size; at += CHUNK) {
        hash.update(source.read(at, Math.min(CHUNK, source.size - at)));
      }
      return hash.digest('hex');
    }
    const before = fingerprint(fstatSync(source.fd, { bigint: true }));
    const known = recallHash(before);
    if (known !== null) return known;
    const started = Date.now();
    const digest = await this.#inWorker();
    const after = fingerprint(fstatSync(source.fd, { bigint: true }));
    if (after === before) rememberHash(before, digest, fstatSync(source.fd).ctimeMs, started);
    return digest;
  }

  async #inWorker(): Promise<string> {
    const { Worker } = await import('node:worker_threads');
    const { path } = this.#source;
    const closed = () =>
      new ExtractError('interrupted', `${path} was closed before its hash was complete`, { path });
    // While the module was loaded.
    if (this.#closed) throw closed();
    const { fd } = this.#source;
    return await new Promise((resolve, reject) => {
      const worker = new Worker(moduleUrl('elf/hash-worker'), { workerData: { fd } });
      this.#worker = worker;
      worker.once('message', resolve);
      worker.once('error', (error) => reject(fileError(error, path)));
      worker.once('exit', () => reject(closed()));
    });
  }
}
