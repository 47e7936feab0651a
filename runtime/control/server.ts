import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type MessageConnection, ResponseError } from 'vscode-jsonrpc/node';
import { z } from 'zod';
import { DomschedError } from '../error.ts';
import { printable } from '../guest/text.ts';
import { listenOnSocket } from '../private-socket.ts';
import type { Tick } from '../tick/tick.ts';
import { channel } from './channel.ts';
import type { DaemonControl } from './control.ts';
import { FileLock } from './lock.ts';
import { openDaemon } from './open.ts';
import { type Method, OPTIONS } from './schema.ts';

/** Methods that a daemon serves. */
export type Served = Pick<DaemonControl, Method>;

/** Returns what answers for the domains behind `--connect` values, or for all. */
type Serves = (connect: readonly string[]) => Served;

/** Most bytes of one request. */
const MAX_REQUEST = 64 * 1024;
/** Most ticks that wait for a client that does not read; later ones are dropped for it. */
const MAX_UNREAD = 64;
/** JSON-RPC code for an error of the server itself. */
const SERVER_ERROR = -32_000;

/** How long a daemon that may serve the socket already has for an answer, and how often to look again. */
const ANSWER_MS = 5_000;
const RETRY_MS = 50;
const ATTEMPTS = 100;

/** Serves the control socket, for root alone. */
export class ControlServer {
  readonly path: string;
  readonly #server: Server;
  readonly #log: Logger;
  readonly #lock: FileLock;
  readonly #serves: Serves;
  readonly #clients = new Set<Socket>();
  /** Ticks on their way to each client that watches. */
  readonly #watchers = new Map<MessageConnection, number>();

  private constructor(file: string, serves: Serves, log: Logger, lock: FileLock) {
    this.path = file;
    this.#lock = lock;
    this.#serves = serves;
    this.#log = log;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** @throws DomschedError `refused` when a daemon runs already, `host-unreachable` when the socket cannot be made */
  static async listen(file: string, serves: Serves, log: Logger): Promise<ControlServer> {
    const refused = () =>
      new DomschedError('refused', `a daemon runs already: it serves ${file}`, { path: file });
    // The lock is needed because two daemons that start together both find nobody at the socket.
    const lock = FileLock.take(`${file}.lock`);
    if (lock === undefined) throw refused();
    try {
      if (await isServed(file)) throw refused();
      const server = new ControlServer(file, serves, log, lock);
      await server.#bind();
      return server;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  async #bind(): Promise<void> {
    const { path } = this;
    try {
      await listenOnSocket(this.#server, path);
    } catch (cause) {
      const text = `the control socket ${path} cannot be made: ${(cause as Error).message}`;
      throw new DomschedError('host-unreachable', text, { path }, { cause });
    }
  }

  get watched(): boolean {
    return this.#watchers.size > 0;
  }

  tick(tick: Tick): void {
    for (const [connection, unread] of this.#watchers) {
      if (unread >= MAX_UNREAD) continue;
      this.#watchers.set(connection, unread + 1);
      const sent = () => {
        const now = this.#watchers.get(connection);
        if (now !== undefined) this.#watchers.set(connection, now - 1);
      };
      connection.sendNotification('tick', tick).then(sent, sent);
    }
  }

  async close(): Promise<void> {
    for (const socket of this.#clients) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    try {
      rmSync(this.path, { force: true });
    } catch {
      // In a folder of root's, whose rights were given up: the next daemon puts its own in its place.
    }
    this.#lock.release();
  }

  #serve(socket: Socket): void {
    this.#clients.add(socket);
    const connection = channel(socket, MAX_REQUEST);
    for (const method of Object.keys(OPTIONS) as Method[])
      connection.onRequest(method, (parameters: unknown) => this.#answer(method, parameters));
    connection.onRequest('watch', () => {
      this.#watchers.set(connection, 0);
    });
    connection.onNotification('unwatch', () => {
      this.#watchers.delete(connection);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#clients.delete(socket);
      this.#watchers.delete(connection);
    });
    connection.listen();
  }

  async #answer(method: Method, parameters: unknown): Promise<unknown> {
    try {
      const { connect, ...options } = read(method, parameters);
      const served = this.#serves(connect) as Record<Method, (options: object) => Promise<unknown>>;
      return (await served[method](options)) ?? null;
    } catch (error) {
      if (!(error instanceof DomschedError)) this.#log.error({ err: error }, 'a request failed');
      const { code, message, details } =
        error instanceof DomschedError ? error : { code: 'protocol', message: String(error), details: {} };
      return new ResponseError(SERVER_ERROR, message, JSON.parse(JSON.stringify({ code, details }, plain)));
    }
  }
}

const CONNECT = { connect: z.array(z.string()).max(1000).default([]) };

/** @throws DomschedError `usage` */
function read(method: Method, parameters: unknown): { connect: string[] } & Record<string, unknown> {
  const result = OPTIONS[method].extend(CONNECT).safeParse(parameters);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const message = printable(`${issue?.path.join('.')}: ${issue?.message}`);
  throw new DomschedError('usage', `the daemon was asked wrongly: ${message}`, {});
}

/**
 * Whether a daemon serves the socket. One that was killed while it started a child process leaves the socket open until
 * that child has called exec; a client that connects meanwhile only sees the connection end.
 */
async function isServed(file: string): Promise<boolean> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    await using daemon = await openDaemon([], file);
    if (daemon === undefined) return false;
    try {
      // A daemon that is too busy to answer still counts as running.
      await Promise.race([daemon.status(), sleep(ANSWER_MS, undefined, { ref: false })]);
      return true;
    } catch (error) {
      if (!(error instanceof DomschedError) || error.code !== 'host-unreachable') return true;
    }
    await sleep(RETRY_MS);
  }
  return true;
}

/** JSON has no bigint: details may hold addresses. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  return value instanceof Error ? value.message : value;
}
