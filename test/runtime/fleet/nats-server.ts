/** The real server, on a port of its own on this machine's loopback. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { projectDirectory } from '../../../kernels/paths.ts';
import { until } from '../../live/until.ts';
import { freePort } from '../free-port.ts';

/** Where Debian has it, which is in no user's PATH. */
const PROGRAM = existsSync('/usr/sbin/nats-server') ? '/usr/sbin/nats-server' : 'nats-server';

export class NatsServer implements AsyncDisposable {
  readonly directory: string;
  readonly port: number;
  readonly #scheme: 'nats' | 'tls';
  #child: ChildProcess | undefined;
  #said = '';

  private constructor(directory: string, port: number, scheme: 'nats' | 'tls' = 'nats') {
    this.directory = directory;
    this.port = port;
    this.#scheme = scheme;
  }

  /**
   * @param configuration more of it, in the server's own language
   * @param address where it listens
   */
  static async start(configuration = '', address = '127.0.0.1'): Promise<NatsServer> {
    const directory = await mkdtemp(path.join(tmpdir(), 'domsched-nats-'));
    const server = new NatsServer(directory, await freePort());
    const own = `listen: "${address}:${server.port}"\njetstream { store_dir: "${directory}/store" }\n`;
    await writeFile(server.#file, `${own}${configuration}\n`);
    await server.again();
    return server;
  }

  /**
   * The configuration that we ship, in a folder of its own: with TLS, accounts and permissions.
   * @param change what somebody makes of its accounts
   */
  static async ofExample(change = (accounts: string) => accounts): Promise<NatsServer> {
    const directory = await mkdtemp(path.join(tmpdir(), 'domsched-nats-'));
    const server = new NatsServer(directory, await freePort(), 'tls');
    await certify(directory);
    const shipped = (name: string) => readFile(path.join(projectDirectory, 'examples/fleet', name), 'utf8');
    const text = (await shipped('nats-server.conf'))
      .replace('0.0.0.0:4222', `127.0.0.1:${server.port}`)
      .replace('/var/lib/nats', `${directory}/store`)
      .replaceAll('/etc/nats/', `${directory}/`);
    await writeFile(server.#file, text);
    await writeFile(path.join(directory, 'fleet.conf'), change(await shipped('server.conf')));
    await server.again();
    return server;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}`;
  }

  /** Who signed its certificate, and somebody who did not. */
  get ca(): string {
    return path.join(this.directory, 'ca.pem');
  }

  get strangeCa(): string {
    return path.join(this.directory, 'strange.pem');
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

/** A certificate for this machine's loopback, by an authority of its own, and another authority. */
async function certify(directory: string): Promise<void> {
  const make = (name: string, ...more: string[]) =>
    execa('openssl', [
      ...['req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-days', '365'],
      ...['-subj', `/CN=${name}`, '-keyout', path.join(directory, `${name}.key`)],
      ...['-out', path.join(directory, `${name}.pem`), ...more],
    ]);
  await Promise.all([make('ca'), make('strange')]);
  const signed = ['-CA', path.join(directory, 'ca.pem'), '-CAkey', path.join(directory, 'ca.key')];
  await make('server', ...signed, '-addext', 'subjectAltName=IP:127.0.0.1');
}
