import { createConnection, type Socket } from 'node:net';

/** A shell in the guest, over its second serial port: one command at a time. */
export class GuestAgent {
  readonly #socket: Socket;
  #text = '';
  #wake: () => void = () => undefined;
  #lane: Promise<unknown> = Promise.resolve();
  #token = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.#text += text;
      this.#wake();
    });
    socket.on('error', () => this.#wake());
    socket.on('close', () => this.#wake());
  }

  /** Connects and waits until the shell answers. */
  static async connect(path: string): Promise<GuestAgent> {
    const socket = await new Promise<Socket>((resolve, reject) => {
      const connecting = createConnection({ path }, () => {
        connecting.off('error', reject);
        resolve(connecting);
      });
      connecting.once('error', reject);
    });
    const agent = new GuestAgent(socket);
    for (let attempt = 1; ; attempt++) {
      try {
        // What is sent before the guest has opened its port is lost.
        await agent.run('true', 2_000);
        return agent;
      } catch (error) {
        if (attempt < 30) continue;
        agent.close();
        throw error;
      }
    }
  }

  /**
   * Runs one line of shell in the guest.
   * @returns its output
   * @throws Error when it fails, or doesn't end within the time
   */
  run(command: string, timeoutMs = 120_000): Promise<string> {
    const turn = this.#lane.then(() => this.#run(command, timeoutMs));
    this.#lane = turn.catch(() => undefined);
    return turn;
  }

  close(): void {
    this.#socket.destroy();
  }

  async #run(command: string, timeoutMs: number): Promise<string> {
    this.#text = '';
    // The token tells the answer from a late one to an earlier command.
    this.#token += 1;
    this.#socket.write(`${this.#token} ${command}\n`);
    const end = new RegExp(`@@END ${this.#token} (\\d+)\\r?\\n`);
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const match = end.exec(this.#text);
      if (match !== null) {
        const output = this.#text
          .slice(0, match.index)
          .replaceAll('\r', '')
          .replace(/^.*@@END \d+ \d+\n/s, '');
        if (match[1] === '0') return output;
        throw new Error(`in the guest, \`${command}\` ended with ${match[1]}: ${output}`);
      }
      const left = deadline - Date.now();
      if (left <= 0 || this.#socket.destroyed) {
        throw new Error(`in the guest, \`${command}\` gave no answer: ${this.#text.slice(-500)}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
