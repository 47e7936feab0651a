import { createConnection, type Socket } from 'node:net';
import koffi from 'koffi';
import { DomschedError } from '../../error.ts';
import { peerOf, type UnixPeer } from './unix-peer.ts';

const NEWLINE = 0x0a;
const MSG_PEEK_DONTWAIT = 0x02 | 0x40;
const recv = koffi
  .load('libc.so.6')
  .func('int64_t recv(int fd, _Out_ void *buffer, size_t length, int flags)');

export interface LineSocketOptions {
  /** Protocol of the socket, for messages. */
  readonly label: string;
  /** Most bytes of one line; a peer that sends more is broken. */
  readonly maxLineBytes: number;
  readonly connectTimeoutMs: number;
  /** Most that may wait for a peer that takes nothing; unbounded when left out. */
  readonly queue?: LineQueue;
}

/** Bounds of what was sent and not taken. */
export interface LineQueue {
  readonly lines: number;
  /** A line that is sent while there are more bytes than this is too much. */
  readonly bytes: number;
}

/** A unix socket that carries lines of text, with a bound on buffering. */
export class LineSocket {
  readonly path: string;
  readonly #socket: Socket;
  readonly #options: LineSocketOptions;
  #chunks: Buffer[] = [];
  #buffered = 0;
  /** Lines that the kernel has not taken yet. */
  #queued = 0;
  readonly #peek = new Uint8Array(1);
  #onLine: (line: string) => void = () => undefined;
  #onEnd: (error: DomschedError) => void = () => undefined;
  #ended: DomschedError | undefined;

  private constructor(path: string, socket: Socket, options: LineSocketOptions) {
    this.path = path;
    this.#socket = socket;
    this.#options = options;
    socket.on('data', (chunk) => this.#receive(chunk));
    // A connection that once worked breaks when its other end dies (ECONNRESET, EPIPE).
    socket.on('error', (cause) => this.#end('domain-gone', `connection broke: ${cause.message}`, cause));
    socket.on('close', () =>
      this.#end('domain-gone', 'connection was closed: the virtual machine has ended'),
    );
  }

  /** @throws DomschedError `host-unreachable` with the system's reason, `timeout` */
  static connect(path: string, options: LineSocketOptions): Promise<LineSocket> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ path });
      const timer = setTimeout(() => {
        socket.destroy();
        reject(
          new DomschedError('timeout', `${options.label} ${path} does not accept connections`, { path }),
        );
      }, options.connectTimeoutMs);
      socket.once('error', (cause: NodeJS.ErrnoException) => {
        clearTimeout(timer);
        reject(
          new DomschedError(
            'host-unreachable',
            `cannot connect to ${options.label} ${path}: ${explain(cause.code)}`,
            { path, errno: cause.code },
            { cause },
          ),
        );
      });
      socket.once('connect', () => {
        clearTimeout(timer);
        socket.removeAllListeners('error');
        resolve(new LineSocket(path, socket, options));
      });
    });
  }

  /** Over a connection that is there already. @param path names it in messages */
  static over(path: string, socket: Socket, options: LineSocketOptions): LineSocket {
    return new LineSocket(path, socket, options);
  }

  /** The process that serves it; undefined if it cannot be told. */
  get peer(): UnixPeer | undefined {
    return peerOf(this.#socket);
  }

  /** Delivers lines and, once, the reason why there are no more. Earlier lines are delivered first. */
  listen(onLine: (line: string) => void, onEnd: (error: DomschedError) => void): void {
    this.#onLine = onLine;
    this.#onEnd = onEnd;
    if (this.#ended !== undefined) onEnd(this.#ended);
  }

  /** Of our end, -1 once it is closed. */
  get descriptor(): number {
    return (this.#socket as unknown as { _handle?: { fd?: number } })._handle?.fd ?? -1;
  }

  /** Whether nothing has arrived that was not delivered yet, not even in the kernel's buffer. Does not wait. */
  get isQuiet(): boolean {
    const fd = this.descriptor;
    if (fd < 0 || this.#buffered > 0 || this.#ended !== undefined) return false;
    // An empty socket gives the error EAGAIN; 0 means the end of the connection.
    return (recv(fd, this.#peek, 1, MSG_PEEK_DONTWAIT) as number) < 0;
  }

  /** With bounds for what waits, ends the connection to a peer that takes too little. */
  send(line: string): void {
    if (this.#ended !== undefined) return;
    const { queue } = this.#options;
    if (queue !== undefined && (this.#queued >= queue.lines || this.#socket.writableLength > queue.bytes)) {
      this.fail('takes nothing of what it is sent', { lines: this.#queued });
      return;
    }
    this.#queued += 1;
    this.#socket.write(`${line}\n`, () => {
      this.#queued -= 1;
    });
  }

  /** Ends delivery because the peer broke its protocol. */
  fail(message: string, details: Record<string, unknown> = {}): void {
    this.#end('protocol', message, undefined, details);
  }

  close(): void {
    this.#ended ??= new DomschedError('domain-gone', `${this.#options.label} ${this.path} was closed by us`, {
      path: this.path,
    });
    this.#socket.destroy();
  }

  /** Lets the process exit while the socket is open. */
  unref(): void {
    this.#socket.unref();
  }

  ref(): void {
    this.#socket.ref();
  }

  #receive(chunk: Buffer): void {
    let rest = chunk;
    while (this.#ended === undefined) {
      const end = rest.indexOf(NEWLINE);
      if (end < 0) break;
      const line = Buffer.concat([...this.#chunks, rest.subarray(0, end)]).toString('utf8');
      this.#chunks = [];
      this.#buffered = 0;
      rest = rest.subarray(end + 1);
      this.#onLine(line.endsWith('\r') ? line.slice(0, -1) : line);
    }
    if (rest.length === 0 || this.#ended !== undefined) return;
    this.#chunks.push(rest);
    this.#buffered += rest.length;
    if (this.#buffered > this.#options.maxLineBytes) {
      this.fail(
        `sent a line longer than ${this.#options.maxLineBytes} bytes: this is not the socket it is taken for`,
      );
    }
  }

  #end(
    code: 'domain-gone' | 'protocol',
    message: string,
    cause?: Error,
    details: Record<string, unknown> = {},
  ): void {
    if (this.#ended !== undefined) return;
    const text = `${this.#options.label} ${this.path}: ${message}`;
    this.#ended = new DomschedError(code, text, { path: this.path, ...details }, { cause });
    this.#chunks = [];
    this.#socket.destroy();
    this.#onEnd(this.#ended);
  }
}

function explain(code: string | undefined): string {
  if (code === 'ENOENT') return 'there is no such socket; is the virtual machine running?';
  if (code === 'ECONNREFUSED')
    return 'nobody listens; the virtual machine has ended and left its socket behind';
  if (code === 'EACCES' || code === 'EPERM')
    return 'permission denied; run as root or as the user that runs QEMU';
  if (code === 'EAGAIN') return 'too many clients wait for it';
  return code ?? 'unknown error';
}
