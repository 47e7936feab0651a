/** The real server, on a port of its own on this machine's loopback. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from '../../live/page.ts';
import { until } from '../../live/until.ts';

/** Where Debian has it, which is in no user's PATH. */
const PROGRAM = existsSync('/usr/sbin/nats-server') ? '/usr/sbin/nats-server' : 'nats-server';

export class NatsServer implements AsyncDisposable {
  readonly directory: string;
  readonly port: number;
  #child: ChildProcess | undefined;
  #said = '';

  private constructor(directory: string, port: number) {
    this.directory = directory;
    this.port = port;
  }

  /** @param configuration more of it, in the server's own language */
  static async start(configuration = ''): Promise<NatsServer> {
    const directory = await mkdtemp(path.join(tmpdir(), 'domsched-nats-'));
    const server = new NatsServer(directory, await freePort());
    const own = `listen: "127.0.0.1:${server.port}"\njetstream { store_dir: "${directory}/store" }\n`;
    await writeFile(server.#file, `${own}${configuration}\n`);
    await server.again();
    return server;
  }

  get url(): string {
    return `nats://127.0.0.1:${this.port}`;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get #file(): string {
    return path.join(this.directory, 'server.conf');
  }

  /** Starts it, or starts it again with what it has stored. */
  async again(): Promise<void> {
    this.#said = '';
    const child = spawn(PROGRAM, ['-c', this.#file], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
    });
    await until(
      'nats-server is ready',
      () => {
        if (child.exitCode !== null) throw new Error(`nats-server ended: ${this.#said}`);
        return this.#said.includes('Server is ready');
      },
      60_000,
      20,
    );
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }

  /** Stops it, or lets it go on: for its clients it is behind a network that loses everything. */
  pause(stopped: boolean): void {
    this.#child!.kill(stopped ? 'SIGSTOP' : 'SIGCONT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await rm(this.directory, { recursive: true, force: true });
  }
}
