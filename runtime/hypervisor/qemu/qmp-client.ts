import { DomschedError } from '../../error.ts';
import { JsonStream } from './json-stream.ts';
import { LineSocket } from './line-socket.ts';
import { explainSilence, whyStopped } from './silence.ts';
import type { UnixPeer } from './unix-peer.ts';

/** `info mtree -f` of a big machine is some 100 KB. QEMU sends no line longer than this. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;
const DEFAULT_TIMEOUT_MS = 10_000;
/** QEMU greets from its main loop, which may take seconds on a busy host. */
const GREETING_TIMEOUT_MS = 10_000;
const MAX_PENDING = 256;
/** Id of commands that another process sends through this connection; we number ours from 1. */
export const OTHERS_ID = 0;

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface QmpOptions {
  /** Time-out for the greeting, which a busy QEMU does not send. */
  readonly greetingTimeoutMs?: number;
  /** Time-out for each command. */
  readonly timeoutMs?: number;
}

interface QmpRequest {
  readonly command: string;
  readonly timer: NodeJS.Timeout;
  resolve(value: unknown): void;
  reject(error: DomschedError): void;
}

/** Error for a command that QEMU refused, with its own words in `details.description`. */
function refusal(command: string, path: string, error: unknown): DomschedError {
  const { class: errorClass, desc } = asRecord(error) ?? {};
  const description = typeof desc === 'string' ? desc : 'no reason given';
  return new DomschedError('protocol', `QMP ${path}: ${command} failed: ${description}`, {
    path,
    command,
    description,
    errorClass,
  });
}

/**
 * Client of QEMU's machine protocol (QEMU docs/interop/qmp-spec). One per virtual machine: QEMU serves one client
 * per socket.
 */
export class QmpClient {
  readonly path: string;
  readonly #socket: LineSocket;
  readonly #timeoutMs: number;
  readonly #stream = new JsonStream(MAX_LINE_BYTES);
  readonly #pending = new Map<number, QmpRequest>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #endListeners = new Set<(error: DomschedError) => void>();
  #nextId = 1;
  #ended: DomschedError | undefined;
  #greeted: ((error?: DomschedError) => void) | undefined;

  private constructor(path: string, socket: LineSocket, timeoutMs: number) {
    this.path = path;
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Connects, waits for the greeting and leaves negotiation mode.
   * @throws DomschedError `host-unreachable`; `timeout` when QEMU does not greet, because another client is attached or
   *   it was stopped; `protocol` when it is not a QMP socket
   */
  static async connect(path: string, options: QmpOptions = {}): Promise<QmpClient> {
    const greetingTimeoutMs = options.greetingTimeoutMs ?? GREETING_TIMEOUT_MS;
    const socket = await LineSocket.connect(path, {
      label: 'QMP',
      maxLineBytes: MAX_LINE_BYTES,
      connectTimeoutMs: greetingTimeoutMs,
    });
    const client = new QmpClient(path, socket, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    try {
      await client.#greeting(greetingTimeoutMs);
      await client.execute('qmp_capabilities');
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /**
   * Runs one command.
   * @param timeoutMs overrides the client's own
   * @throws DomschedError `timeout`; `protocol` when QEMU refuses it (`details.description`) or answers garbage;
   *   `domain-gone`
   */
  execute(command: string, args?: Record<string, unknown>, timeoutMs = this.#timeoutMs): Promise<unknown> {
    return this.#execute(command, args, timeoutMs);
  }

  #execute(
    command: string,
    args: Record<string, unknown> | undefined,
    timeoutMs: number,
    at: (answer: unknown) => void = () => undefined,
  ): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(
        new DomschedError('timeout', `QMP ${this.path}: ${MAX_PENDING} commands wait for an answer`, {
          path: this.path,
        }),
      );
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        const stopped = whyStopped(this.path, this.peer);
        const why = stopped === undefined ? '' : `: ${stopped}`;
        const message = `QMP ${this.path}: no answer to ${command} within ${timeoutMs} ms${why}`;
        reject(new DomschedError('timeout', message, { path: this.path, command }));
      }, timeoutMs);
      const answered = (answer: unknown) => {
        at(answer);
        resolve(answer);
      };
      this.#pending.set(id, { command, timer, resolve: answered, reject });
      this.#socket.send(JSON.stringify({ execute: command, ...(args && { arguments: args }), id }));
    });
  }

  /**
   * Runs one command, and calls `at` when its answer is handled: after all events that QEMU sent before it, and before
   * all that it sent later.
   * @returns what `at` returned
   * @throws DomschedError as {@link execute}
   */
  executeAt<T>(command: string, at: (answer: unknown) => T): Promise<T> {
    let result: T;
    const answered = this.#execute(command, undefined, this.#timeoutMs, (answer) => {
      result = at(answer);
    });
    return answered.then(() => result);
  }

  /** Whether everything that QEMU sent was handled. */
  get isQuiet(): boolean {
    return this.#ended === undefined && this.#socket.isQuiet;
  }

  /** Sends a command without waiting for an answer, which is all that a dying process can do. */
  sendOnly(command: string): void {
    if (this.#ended === undefined)
      this.#socket.send(JSON.stringify({ execute: command, id: this.#nextId++ }));
  }

  /** Runs a command of the human monitor. @returns its output */
  async human(line: string, timeoutMs?: number): Promise<string> {
    const output = await this.execute('human-monitor-command', { 'command-line': line }, timeoutMs);
    if (typeof output === 'string') return output;
    throw new DomschedError('protocol', `QMP ${this.path}: ${line} did not answer with text`, {
      path: this.path,
    });
  }

  /** @returns a function that ends the subscription */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls the listener once when the connection ends, unless we closed it. */
  onEnd(listener: (error: DomschedError) => void): void {
    this.#endListeners.add(listener);
  }

  /** Of our end, -1 once it is closed. */
  get descriptor(): number {
    return this.#socket.descriptor;
  }

  /** The process that serves the socket; undefined if it cannot be told. */
  get peer(): UnixPeer | undefined {
    return this.#socket.peer;
  }

  close(): void {
    this.#ended ??= new DomschedError('domain-gone', `QMP ${this.path} was closed by us`, {
      path: this.path,
    });
    this.#socket.close();
    this.#rejectAll(this.#ended);
    this.#listeners.clear();
    this.#endListeners.clear();
  }

  #greeting(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#greeted = undefined;
        reject(explainSilence(this.path, this.peer));
      }, timeoutMs);
      this.#greeted = (error) => {
        clearTimeout(timer);
        this.#greeted = undefined;
        if (error === undefined) resolve();
        else reject(error);
      };
      this.#socket.listen(
        (line) => {
          for (const text of this.#stream.add(line)) this.#receive(text);
        },
        (error) => this.#end(error),
      );
    });
  }

  #receive(text: string): void {
    const message = parseObject(text);
    const line = text.slice(0, 120);
    if (message === undefined) {
      this.#socket.fail(`sent what is no message of QMP ${JSON.stringify(line)}; name the socket of -qmp`, {
        line,
      });
      return;
    }
    if (this.#greeted !== undefined) {
      if ('QMP' in message) this.#greeted();
      else this.#socket.fail('did not greet as QMP does; name the socket of -qmp', { line });
      return;
    }
    if (typeof message.event === 'string') {
      const event: QmpEvent = { event: message.event, data: asRecord(message.data) ?? {} };
      for (const listener of [...this.#listeners]) listener(event);
      return;
    }
    const id = message.id;
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (pending === undefined) {
      // A late answer to a command that timed out is harmless, and so is one to our watchdog's.
      if (typeof id === 'number' && Number.isInteger(id) && id >= OTHERS_ID && id < this.#nextId) return;
      this.#socket.fail('answered a question that was not asked', { line });
      return;
    }
    this.#pending.delete(id as number);
    clearTimeout(pending.timer);
    if ('return' in message) pending.resolve(message.return);
    else pending.reject(refusal(pending.command, this.path, message.error));
  }

  #end(error: DomschedError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#greeted?.(error);
    this.#rejectAll(error);
    for (const listener of this.#endListeners) listener(error);
  }

  #rejectAll(error: DomschedError): void {
    for (const { timer, reject } of this.#pending.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#pending.clear();
  }
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    return asRecord(JSON.parse(line));
  } catch {
    return undefined;
  }
}

/** The value if it is a JSON object. */
export function asRecord(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}
