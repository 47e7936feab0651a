import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { DomschedError } from '../error.ts';
import { listenOnSocket } from '../private-socket.ts';
import type { Tick } from '../tick/tick.ts';
import { ControlClient } from './control-client.ts';
import { MAX_REQUEST } from './control-protocol.ts';
import { FileLock } from './lock.ts';

/** A request's parameters as they came: to be checked by who serves it. */
export type Parameters = Readonly<Record<string, unknown>>;
export type Operations = Readonly<Record<string, (parameters: Parameters) => Promise<unknown>>>;

/** What a client that does not read may make us keep, in bytes. */
const MAX_UNREAD = 64 * 1024 * 1024;

/** How long somebody who may serve the socket already has for an answer, and when and how often to look again. */
const ANSWER_MS = 5_000;
const RETRY_MS = 50;
const ATTEMPTS = 100;

/** Serves the control socket, for root alone. */
export class ControlServer {
  readonly path: string;
  readonly #server: Server;
  readonly #log: Logger;
  readonly #lock: FileLock;
  readonly #operations: Operations;
  readonly #clients = new Set<Socket>();
  readonly #watchers = new Map<Socket, unknown>();

  private constructor(file: string, operations: Operations, log: Logger, lock: FileLock) {
    this.path = file;
    this.#lock = lock;
    this.#operations = operations;
    this.#log = log;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** @throws DomschedError `refused` when a daemon runs already, `host-unreachable` when the socket cannot be made */
  static async listen(file: string, operations: Operations, log: Logger): Promise<ControlServer> {
    const refused = () =>
      new DomschedError('refused', `a daemon runs already: it serves ${file}`, { path: file });
    // Two that start in one moment both find nobody at the socket.
    const lock = FileLock.take(`${file}.lock`);
    if (lock === undefined) throw refused();
    try {
      if (await isServed(file)) throw refused();
      const server = new ControlServer(file, operations, log, lock);
      await server.#bind();
      return server;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  async #bind(): Promise<void> {
    const fail = (cause: unknown) =>
      new DomschedError(
        'host-unreachable',
        `the control socket ${this.path} cannot be made: ${(cause as Error).message}`,
        { path: this.path },
        { cause },
      );
    try {
      await listenOnSocket(this.#server, this.path);
    } catch (cause) {
      throw fail(cause);
    }
  }

  /** Whether anybody watches the ticks. */
  get watched(): boolean {
    return this.#watchers.size > 0;
  }

  tick(report: Tick): void {
    if (this.#watchers.size === 0) return;
    const text = JSON.stringify(report);
    for (const [socket, id] of this.#watchers) {
      if (socket.writableLength > MAX_UNREAD) socket.destroy();
      else socket.write(`{"id":${JSON.stringify(id)},"tick":${text}}\n`);
    }
  }

  async close(): Promise<void> {
    for (const socket of this.#clients) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    rmSync(this.path, { force: true });
    this.#lock.release();
  }

  #serve(socket: Socket): void {
    this.#clients.add(socket);
    let rest = '';
    socket.setEncoding('utf8');
    socket.on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) void this.#answer(socket, line);
      if (rest.length > MAX_REQUEST) socket.destroy();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#clients.delete(socket);
      this.#watchers.delete(socket);
    });
  }

  async #answer(socket: Socket, line: string): Promise<void> {
    let id: unknown = null;
    try {
      const request = parse(line);
      id = request.id ?? null;
      if (request.op === 'watch') {
        this.#watchers.set(socket, id);
        return;
      }
      const op = String(request.op);
      const perform = Object.hasOwn(this.#operations, op) ? this.#operations[op] : undefined;
      if (perform === undefined)
        throw new DomschedError('usage', `the daemon knows no operation ${op}`, { op });
      const result = (await perform(request)) ?? null;
      if (!socket.destroyed) socket.write(`${JSON.stringify({ id, result })}\n`);
    } catch (error) {
      if (!(error instanceof DomschedError)) this.#log.error({ err: error }, 'a request failed');
      const { code, message, details } =
        error instanceof DomschedError ? error : { code: 'protocol', message: String(error), details: {} };
      if (!socket.destroyed)
        socket.write(`${JSON.stringify({ id, error: { code, message, details } }, plain)}\n`);
    }
  }
}

/**
 * Whether a daemon is behind the socket. One that was killed while it started a process of its own leaves the socket
 * open for the moment until that process is on its way: who connects then gets no answer, but the end.
 */
async function isServed(file: string): Promise<boolean> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    using client = await ControlClient.connect(file);
    if (client === undefined) return false;
    try {
      // One that is too busy to answer is one.
      await Promise.race([client.request('status'), sleep(ANSWER_MS, undefined, { ref: false })]);
      return true;
    } catch (error) {
      if (!(error instanceof DomschedError) || error.code !== 'host-unreachable') return true;
    }
    await sleep(RETRY_MS);
  }
  return true;
}

/** @throws DomschedError `usage` */
function parse(line: string): Record<string, unknown> {
  try {
    const request: unknown = JSON.parse(line);
    if (typeof request === 'object' && request !== null && !Array.isArray(request)) {
      return request as Record<string, unknown>;
    }
  } catch {
    // Said below.
  }
  throw new DomschedError('usage', 'a request is a JSON object on one line', {});
}

/** Details may hold addresses. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  return value instanceof Error ? value.message : value;
}
