import { createConnection, type Socket } from 'node:net';

/**
 * The guest's side, in shell: a line is what its sender counted or is not run. A receiver of 16 bytes that is emptied at
 * the wrong moment was seen to lose them (16550A).
 * @param run how it is run
 */
export function answering(run: string): string {
  return [
    'while read -r token length line; do case $token in "") continue;; esac',
    `[ "\${#line}" = "$length" ] || { echo @@LOST; continue; }`,
    `${run}; echo "@@END $token $?"; done`,
  ].join('; ');
}

const SENDINGS = 10;
/** After so long without an answer a line may be one whose end was lost. */
const NUDGE_MS = 2_000;

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
   * Runs one line of shell in the guest, ASCII. What does not come there whole is sent again.
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
    // The token tells the answer from a late one to an earlier command.
    this.#token += 1;
    const line = command.trim();
    let sent = 0;
    const send = (): void => {
      this.#text = '';
      sent += 1;
      this.#socket.write(`${this.#token} ${line.length} ${line}\n`);
    };
    send();
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
      if (sent < SENDINGS && /@@LOST\r?\n/.test(this.#text)) {
        send();
        continue;
      }
      const left = deadline - Date.now();
      if (left <= 0 || this.#socket.destroyed) {
        throw new Error(`in the guest, \`${command}\` gave no answer: ${this.#text.slice(-500)}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(
          () => {
            // The end of a line that is not there, or a line without words, of which nothing is said.
            if (left > NUDGE_MS) this.#socket.write('\n');
            resolve();
          },
          Math.min(left, NUDGE_MS),
        );
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
