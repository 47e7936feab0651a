import { DomschedError } from '../../error.ts';
import { LineSocket } from './line-socket.ts';

const TIMEOUT_MS = 5_000;
const MAX_LINE_BYTES = 64 * 1024;
const MAX_PENDING = 1024;

interface QtestRequest {
  readonly timer: NodeJS.Timeout;
  resolve(): void;
  reject(error: DomschedError): void;
}

/** Client of QEMU's qtest socket (QEMU softmmu/qtest.c). We use only its stores to memory, for MSIs. */
export class QtestClient {
  readonly #socket: LineSocket;
  readonly #path: string;
  readonly #pending: QtestRequest[] = [];
  #ended: DomschedError | undefined;

  private constructor(path: string, socket: LineSocket) {
    this.#path = path;
    this.#socket = socket;
    socket.listen(
      (line) => this.#receive(line),
      (error) => this.#end(error),
    );
  }

  /** @throws DomschedError `host-unreachable`, `timeout` */
  static async connect(path: string): Promise<QtestClient> {
    const socket = await LineSocket.connect(path, {
      label: 'qtest',
      maxLineBytes: MAX_LINE_BYTES,
      connectTimeoutMs: TIMEOUT_MS,
    });
    return new QtestClient(path, socket);
  }

  /** Stores a 32-bit word as a device would. @throws DomschedError `timeout`, `protocol`, `domain-gone` */
  writel(address: number, value: number): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#socket.fail(
          'does not answer: it serves one client at a time, and another one may be attached (a daemon of ours)',
        );
        reject(new DomschedError('timeout', `qtest ${this.#path} does not answer`, { path: this.#path }));
      }, TIMEOUT_MS);
      if (this.#pending.length >= MAX_PENDING) {
        clearTimeout(timer);
        reject(
          new DomschedError('timeout', `qtest ${this.#path}: too many stores wait`, { path: this.#path }),
        );
        return;
      }
      this.#pending.push({ timer, resolve, reject });
      this.#socket.send(`writel 0x${address.toString(16)} 0x${value.toString(16)}`);
    });
  }

  close(): void {
    this.#socket.close();
    this.#end(new DomschedError('domain-gone', `qtest ${this.#path} was closed by us`, { path: this.#path }));
  }

  #receive(line: string): void {
    // Answers come in order; unsolicited IRQ lines come when interception is on.
    if (line.startsWith('IRQ ')) return;
    const pending = this.#pending.shift();
    if (pending === undefined || !/^(OK|FAIL|ERR)\b/.test(line)) {
      if (pending !== undefined) this.#pending.unshift(pending);
      this.#socket.fail('sent what is no answer of qtest: is this the qtest socket?', {
        line: line.slice(0, 120),
      });
      return;
    }
    clearTimeout(pending.timer);
    if (line.startsWith('OK')) pending.resolve();
    else pending.reject(new DomschedError('protocol', `qtest ${this.#path}: ${line}`, { path: this.#path }));
  }

  #end(error: DomschedError): void {
    this.#ended ??= error;
    for (const { timer, reject } of this.#pending.splice(0)) {
      clearTimeout(timer);
      reject(error);
    }
  }
}
