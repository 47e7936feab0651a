import { createConnection, type Socket } from 'node:net';
import { DomschedError } from '../../error.ts';

const TIMEOUT_MS = 5_000;
/** The answers that we ask for are short: a register or `OK`. */
const MAX_BUFFER = 64 * 1024;
/** Number of MSR_KERNEL_GS_BASE among the x86-64 registers of QEMU's stub (QEMU gdb-xml/i386-64bit.xml). */
const KERNEL_GS_REGISTER = 0x1a;

interface GdbRequest {
  readonly timer: NodeJS.Timeout;
  resolve(answer: string): void;
  reject(error: DomschedError): void;
}

/**
 * Client of QEMU's gdbstub (GDB manual, Remote Serial Protocol), for two things that QMP lacks: the kernel's GS base,
 * and stores to physical memory, which make an MSI. The stub stops the machine at every packet and when a client
 * connects, so use it only while the machine is paused, and resume the machine after {@link connect}.
 */
export class GdbClient {
  readonly #socket: Socket;
  readonly #path: string;
  #buffer = '';
  #pending: GdbRequest | undefined;
  #lane: Promise<unknown> = Promise.resolve();
  #ended: DomschedError | undefined;

  private constructor(path: string, socket: Socket) {
    this.#path = path;
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text) => this.#receive(String(text)));
    socket.on('error', () => this.#end('domain-gone', 'connection broke'));
    socket.on('close', () => this.#end('domain-gone', 'connection was closed'));
  }

  /** Connects; the machine is stopped when this resolves. @throws DomschedError `host-unreachable`, `timeout` */
  static async connect(path: string): Promise<GdbClient> {
    const socket = await new Promise<Socket>((resolve, reject) => {
      const connecting = createConnection({ path });
      connecting.once('connect', () => {
        connecting.removeAllListeners('error');
        resolve(connecting);
      });
      connecting.once('error', (cause) => {
        const message = `cannot connect to gdbstub ${path}: ${cause.message}`;
        reject(new DomschedError('host-unreachable', message, { path }, { cause }));
      });
    });
    const client = new GdbClient(path, socket);
    try {
      await client.#ask('?', /^[TS]/);
      // The stub gives single registers only to clients that have asked for the list.
      await client.#ask('qXfer:features:read:target.xml:0,20', /^[lmE]/);
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** MSR_KERNEL_GS_BASE of a vCPU. Only while the machine is paused. @throws DomschedError `protocol`, `timeout` */
  async kernelGsBase(vcpu: number): Promise<bigint> {
    const selected = await this.#ask(`Hg${(vcpu + 1).toString(16)}`, /^(OK|E)/);
    const answer = await this.#ask(`p${KERNEL_GS_REGISTER.toString(16)}`, /^([0-9a-f]{16}|E|$)/);
    if (selected !== 'OK' || answer.length !== 16) {
      throw new DomschedError('protocol', `gdbstub ${this.#path} has no kernel GS base of vCPU ${vcpu}`, {
        vcpu,
      });
    }
    return Buffer.from(answer, 'hex').readBigUInt64LE();
  }

  /** Stores a 32-bit word as a device would. Only while the machine is paused. @throws DomschedError `protocol`, `timeout` */
  async writel(address: number, value: number): Promise<void> {
    const word = Buffer.alloc(4);
    word.writeUInt32LE(value);
    const mode = await this.#ask('Qqemu.PhyMemMode:1', /^(OK|E|$)/);
    const stored =
      mode === 'OK' ? await this.#ask(`M${address.toString(16)},4:${word.toString('hex')}`, /^(OK|E)/) : mode;
    if (stored === 'OK') return;
    throw new DomschedError('protocol', `gdbstub ${this.#path} does not store to physical memory`, {
      address,
    });
  }

  close(): void {
    this.#end('domain-gone', 'was closed by us');
  }

  /** Sends a packet and waits for an answer that matches `expected`, skipping anything unsolicited. */
  #ask(packet: string, expected: RegExp): Promise<string> {
    const turn = this.#lane.then(async () => {
      const deadline = Date.now() + TIMEOUT_MS;
      let answer = await this.#exchange(packet, deadline);
      while (!expected.test(answer)) answer = await this.#exchange(undefined, deadline);
      return answer;
    });
    this.#lane = turn.catch(() => undefined);
    return turn;
  }

  #exchange(packet: string | undefined, deadline: number): Promise<string> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending = undefined;
        reject(new DomschedError('timeout', `gdbstub ${this.#path} does not answer`, { path: this.#path }));
      }, deadline - Date.now());
      this.#pending = { timer, resolve, reject };
      if (packet !== undefined) this.#socket.write(`$${packet}#${checksum(packet)}`, 'latin1');
      this.#deliver();
    });
  }

  #receive(text: string): void {
    this.#buffer += text;
    if (this.#buffer.length > MAX_BUFFER) this.#end('protocol', 'sends more than it was asked for');
    else this.#deliver();
  }

  /** Hands the next whole packet to the pending request. */
  #deliver(): void {
    const match = /\$([^#]*)#([0-9a-f]{2})/.exec(this.#buffer);
    if (match === null || this.#pending === undefined) return;
    this.#buffer = this.#buffer.slice(match.index + match[0].length);
    const [, content = '', sum] = match;
    if (checksum(content) !== sum) {
      this.#end('protocol', 'sent a packet with a wrong checksum: is this the gdbstub?');
      return;
    }
    this.#socket.write('+');
    const { timer, resolve } = this.#pending;
    this.#pending = undefined;
    clearTimeout(timer);
    resolve(content);
  }

  #end(code: 'domain-gone' | 'protocol', message: string): void {
    this.#ended ??= new DomschedError(code, `gdbstub ${this.#path}: ${message}`, { path: this.#path });
    this.#socket.destroy();
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending === undefined) return;
    clearTimeout(pending.timer);
    pending.reject(this.#ended);
  }
}

function checksum(content: string): string {
  let sum = 0;
  for (let i = 0; i < content.length; i++) sum += content.charCodeAt(i);
  return (sum & 0xff).toString(16).padStart(2, '0');
}
