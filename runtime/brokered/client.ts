import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { descriptorChannel, receiveDescriptors } from '../broker/descriptors.ts';
import { FILES } from '../broker/machines.ts';
import {
  ANSWER,
  type BrokerAnswers,
  type BrokerRequest,
  MOST_ANSWER_BYTES,
  REQUESTS,
} from '../broker/protocol.ts';
import { wire } from '../broker/wire.ts';
import { DomschedError } from '../error.ts';
import type { LineSocket } from '../hypervisor/qemu/line-socket.ts';
import { errorOf } from './failure.ts';

/** How long to wait for an answer; opening the pause of a busy machine takes seconds. */
const ANSWER_MS = 60_000;

interface WaitingRequest {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly timer: NodeJS.Timeout;
}

/** The reader's end of the connection to the broker. */
export class BrokerClient implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #wire: LineSocket;
  readonly #descriptors: number;
  readonly #asked = new Map<number, WaitingRequest>();
  /** Files that were handed over, by number of the machine. */
  readonly #handed = new Map<number, readonly number[]>();
  #last = 0;
  #lost: DomschedError | undefined;
  #closing = false;
  #onLost: (error: DomschedError) => void = () => undefined;

  private constructor(child: ChildProcess, descriptors: number) {
    this.#child = child;
    this.#descriptors = descriptors;
    this.#wire = wire(child.stdio[REQUESTS] as Socket, MOST_ANSWER_BYTES);
    this.#wire.listen(
      (line) => this.#receive(line),
      () => this.#end(),
    );
    child.on('error', () => this.#end());
  }

  /**
   * Starts a broker with all rights that we have now. Drop ours afterwards.
   * @param places where machines are, `pid:` or `qemu:` each; it opens no others
   */
  static start(places: readonly string[]): BrokerClient {
    const name = import.meta.url.endsWith('.ts') ? 'broker-process.ts' : 'broker-process.js';
    const file = fileURLToPath(new URL(`../broker/${name}`, import.meta.url));
    const [ours, its] = descriptorChannel();
    try {
      // In a session of its own, so that Ctrl-C at our terminal does not end it before us.
      const child = spawn(process.execPath, [file, ...places], {
        detached: true,
        stdio: ['ignore', 'ignore', 'inherit', 'pipe', its],
      });
      return new BrokerClient(child, ours);
    } finally {
      closeSync(its);
    }
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** @param listener is told when the broker has ended, unless we closed it */
  onLost(listener: (error: DomschedError) => void): void {
    this.#onLost = listener;
    if (this.#lost !== undefined) listener(this.#lost);
  }

  /** @throws DomschedError what the broker answered; `host-unreachable` when it has ended; `timeout` */
  async ask<R extends BrokerRequest>(request: R): Promise<BrokerAnswers[R['op']]> {
    if (this.#lost !== undefined) throw this.#lost;
    this.#last += 1;
    const id = this.#last;
    return new Promise<BrokerAnswers[R['op']]>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#asked.delete(id);
        const message = `domsched's broker does not answer (process ${this.pid}): is it stopped?`;
        reject(new DomschedError('timeout', message, { pid: this.pid }));
      }, ANSWER_MS);
      timer.unref();
      this.#asked.set(id, { resolve: resolve as (value: unknown) => void, reject, timer });
      this.#wire.send(JSON.stringify({ id, ...request }));
    });
  }

  /** Files that came before the answer to `open`; they are the caller's to close. */
  take(machine: number): readonly number[] {
    const files = this.#handed.get(machine);
    if (files === undefined) throw new DomschedError('protocol', `no files of machine ${machine} came`, {});
    this.#handed.delete(machine);
    return files;
  }

  /** Ends the broker, which ends all pauses first. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    const gone =
      this.#child.exitCode === null && this.#child.signalCode === null ? once(this.#child, 'exit') : null;
    this.#wire.close();
    await gone;
    this.#end();
    closeSync(this.#descriptors);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #receive(line: string): void {
    const answer = ANSWER.parse(JSON.parse(line));
    const asked = this.#asked.get(answer.id);
    if ('value' in answer) this.#takeFiles(answer.value);
    if (asked === undefined) return;
    this.#asked.delete(answer.id);
    clearTimeout(asked.timer);
    if ('error' in answer) asked.reject(errorOf(answer.error));
    else asked.resolve(answer.value);
  }

  /** In order of the answers, whoever still waits for them. */
  #takeFiles(value: unknown): void {
    const machine = (value as Partial<BrokerAnswers['open']> | null | undefined)?.machine;
    if (typeof machine !== 'number') return;
    const { number, descriptors } = receiveDescriptors(this.#descriptors, FILES.length);
    this.#handed.set(number, descriptors);
  }

  #end(): void {
    if (this.#lost !== undefined) return;
    const message = `domsched's broker has ended (process ${this.pid}): nothing can be held or released until the next start`;
    this.#lost = new DomschedError('host-unreachable', message, { pid: this.pid });
    for (const { reject, timer } of this.#asked.values()) {
      clearTimeout(timer);
      reject(this.#lost);
    }
    this.#asked.clear();
    if (!this.#closing) this.#onLost(this.#lost);
  }
}
