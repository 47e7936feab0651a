import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { DomschedError, type DomschedErrorCode } from '../error.ts';
import type { Tick } from '../tick/tick.ts';
import { controlPath } from './control-protocol.ts';

interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly tick?: Tick;
  readonly error?: { code: DomschedErrorCode; message: string; details: Record<string, unknown> };
}

/** Talks to the daemon that runs on this host. */
export class ControlClient {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, (answer: Answer | undefined) => void>();
  readonly #watching = new Map<number, (report: Tick) => void>();
  #nextId = 1;
  #ended: (() => void)[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket })
      .on('line', (line) => this.#receive(JSON.parse(line) as Answer))
      // The socket's own, which it passes on.
      .on('error', () => undefined);
    const end = () => {
      for (const resolve of this.#waiting.values()) resolve(undefined);
      this.#waiting.clear();
      for (const resolve of this.#ended.splice(0)) resolve();
    };
    socket.on('error', end).on('close', end);
  }

  /**
   * @returns undefined when no daemon runs
   * @throws DomschedError `host-unreachable` when one runs that we may not talk to
   */
  static connect(path = controlPath()): Promise<ControlClient | undefined> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ path });
      socket.once('connect', () => {
        socket.removeAllListeners('error');
        resolve(new ControlClient(socket));
      });
      socket.once('error', (cause: NodeJS.ErrnoException) => {
        if (cause.code === 'ENOENT' || cause.code === 'ECONNREFUSED' || cause.code === 'ENOTDIR')
          resolve(undefined);
        else {
          const message = `the daemon's control socket ${path} cannot be used (${cause.code}); run as root`;
          reject(new DomschedError('host-unreachable', message, { path }, { cause }));
        }
      });
    });
  }

  /** @throws DomschedError what the daemon answers; `host-unreachable` when it ends meanwhile */
  async request<T>(op: string, parameters: object = {}): Promise<T> {
    const id = this.#nextId++;
    const answer = await new Promise<Answer | undefined>((resolve) => {
      this.#waiting.set(id, resolve);
      if (this.#socket.destroyed) resolve(undefined);
      else this.#socket.write(`${JSON.stringify({ ...parameters, id, op })}\n`);
    });
    if (answer === undefined)
      throw new DomschedError('host-unreachable', 'the daemon ended; try again', { op });
    const { error } = answer;
    if (error !== undefined) throw new DomschedError(error.code, error.message, error.details);
    return answer.result as T;
  }

  /** Calls `onTick` for every tick. Resolves when the daemon ends, or the client is closed. */
  async watch(onTick: (report: Tick) => void): Promise<void> {
    const id = this.#nextId++;
    this.#watching.set(id, onTick);
    const ended = new Promise<void>((resolve) => this.#ended.push(resolve));
    if (this.#socket.destroyed) return;
    this.#socket.write(`${JSON.stringify({ id, op: 'watch' })}\n`);
    await ended;
  }

  close(): void {
    this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #receive(answer: Answer): void {
    if (answer.tick !== undefined) {
      this.#watching.get(answer.id)?.(answer.tick);
      return;
    }
    const resolve = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    resolve?.(answer);
  }
}
