import { readFile, rm, writeFile } from 'node:fs/promises';
import { stripTypeScriptTypes } from 'node:module';
import { createConnection, type Socket } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { projectDirectory } from '../../kernels/paths.ts';
import type { Process } from '../../runtime/guest/process.ts';
import type { Operation } from '../../runtime/surgeon/surgeon.ts';
import type { Technique } from '../../runtime/technique/step.ts';
import type { Outcome, XenMachine } from './xen-machine.ts';

/** Answers come when a slow, busy machine has done its work; this is for what never comes. */
const ANSWER_LIMIT_MS = 300_000;
const QUIT_LIMIT_MS = 60_000;

/** What the driver in dom0 can be told. */
export type RemoteRequest = { id: number } & (
  | { do: 'attach'; domain: string; unknown?: boolean }
  | { do: 'detach'; domain: string }
  | { do: 'processes'; domain: string; pause?: boolean; threads?: boolean }
  | { do: 'hold'; domain: string; comm: string; technique?: Technique }
  | { do: 'release'; domain: string; comm: string }
  | { do: 'renice'; domain: string; comm: string; nice: number }
  | { do: 'cycle'; domain: string; comm: string; forMs: number }
  | { do: 'command'; domain: ''; args: readonly string[] }
  | { do: 'quit'; domain: '' }
);

export type RemoteAnswer =
  | { id: number; value: unknown }
  | { id: number; error: { code: string; message: string } };

/** How a row of holds and releases ended. */
export interface CycleOutcome {
  rounds: number;
  code?: string;
  message?: string;
}

export type Brief = Pick<Operation, 'outcome' | 'techniques' | 'attempts' | 'pausedUs' | 'writes'>;

/** What was refused or failed in dom0, with its code. */
export class RemoteError extends Error {
  readonly code: string;

  constructor({ code, message }: { code: string; message: string }) {
    super(`${message} [${code}]`);
    this.code = code;
  }
}

/** The program at work in dom0, told what to do from outside. */
export class XenRemote implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #rounds: string;
  readonly #ended: Promise<unknown>;
  readonly #waiting = new Map<number, (answer: RemoteAnswer) => void>();
  #next = 1;

  private constructor(socket: Socket, rounds: string, ended: Promise<unknown>) {
    this.#socket = socket;
    this.#rounds = rounds;
    this.#ended = ended;
    const lines = createInterface({ input: socket });
    lines.on('line', (line) => {
      const answer = JSON.parse(line) as RemoteAnswer;
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
    // The socket's own too, which it passes on.
    lines.on('error', () => undefined);
    socket.on('error', () => undefined);
  }

  /** @param shell the shell of dom0 that it occupies */
  static async start(xen: XenMachine, shell = 3): Promise<XenRemote> {
    await writeFile(path.join(xen.share, 'driver.mjs'), await asModule('test/live/xen-driver.ts'));
    const socket = await new Promise<Socket>((resolve, reject) => {
      const connecting = createConnection({ path: path.join(xen.directory, 'driver.sock') }, () => {
        connecting.off('error', reject);
        resolve(connecting);
      });
      connecting.once('error', reject);
    });
    const port = '/dev/$(grep -lx driver /sys/class/virtio-ports/*/name | cut -d/ -f5)';
    const ended = xen.run(
      `mkdir -p /driver/test/live && cp /host/driver.mjs /driver && exec node /driver/driver.mjs ${port}`,
      3_600_000,
      shell,
    );
    const remote = new XenRemote(socket, path.join(xen.share, 'rounds'), ended);
    ended.then(
      ({ exitCode, stderr, stdout }) => remote.#fail(`ended with ${exitCode}: ${stderr}${stdout}`),
      (error) => remote.#fail(String(error)),
    );
    return remote;
  }

  /** @param options `unknown`: no layout is known of its kernel */
  attach(
    domain: string,
    options: { unknown?: boolean } = {},
  ): Promise<{ release: string; levels: number; learnedFrom?: string }> {
    return this.#ask({ do: 'attach', domain, ...options });
  }

  detach(domain: string): Promise<void> {
    return this.#ask({ do: 'detach', domain });
  }

  processes(
    domain: string,
    options: { pause?: boolean; threads?: boolean } = {},
  ): Promise<{ exact: boolean; processes: Process[] }> {
    return this.#ask({ do: 'processes', domain, ...options });
  }

  /** Runs a command of the program, without the seconds that its start takes in dom0. */
  async command(...args: string[]): Promise<Outcome> {
    return this.#ask({ do: 'command', domain: '', args });
  }

  /** Runs a command that has to succeed. @returns what it printed, as JSON */
  async json<T>(...args: string[]): Promise<T> {
    const { exitCode, stdout, stderr } = await this.command(...args, '--json');
    if (exitCode !== 0) throw new Error(`domsched ${args.join(' ')} ended with ${exitCode}: ${stderr}`);
    return JSON.parse(stdout) as T;
  }

  /** @returns with it the state that the process was in shortly before */
  hold(domain: string, comm: string, technique?: Technique): Promise<Brief & Pick<Process, 'state'>> {
    return this.#ask({ do: 'hold', domain, comm, ...(technique && { technique }) });
  }

  release(domain: string, comm: string): Promise<Brief> {
    return this.#ask({ do: 'release', domain, comm });
  }

  renice(domain: string, comm: string, nice: number): Promise<Brief> {
    return this.#ask({ do: 'renice', domain, comm, nice });
  }

  /**
   * Holds and releases a process again and again, until the time is over or it fails. Resolves when that goes on.
   * @returns how it ends: how often it was done, and what ended it before its time
   */
  async cycle(domain: string, comm: string, forMs: number): Promise<{ outcome: Promise<CycleOutcome> }> {
    await rm(this.#rounds, { force: true });
    const outcome = this.#ask<CycleOutcome>({ do: 'cycle', domain, comm, forMs });
    let ended = false;
    outcome.then(
      () => (ended = true),
      () => (ended = true),
    );
    while (!ended && Number(await readFile(this.#rounds, 'utf8').catch(() => '0')) < 2) await sleep(50);
    return { outcome };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.write(`${JSON.stringify({ id: 0, do: 'quit', domain: '' })}\n`);
    // With the machine, whatever still runs in it ends.
    await Promise.race([this.#ended.catch(() => undefined), sleep(QUIT_LIMIT_MS, undefined, { ref: false })]);
    this.#socket.destroy();
  }

  async #ask<T>(request: DistributiveOmit<RemoteRequest, 'id'>): Promise<T> {
    const id = this.#next++;
    const answer = await new Promise<RemoteAnswer>((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        resolve({
          id,
          error: { code: 'no-answer', message: `no answer to ${JSON.stringify(request)}` },
        });
      }, ANSWER_LIMIT_MS);
      this.#waiting.set(id, (found) => {
        clearTimeout(timer);
        resolve(found);
      });
      this.#socket.write(`${JSON.stringify({ id, ...request })}\n`);
    });
    if ('error' in answer) throw new RemoteError(answer.error);
    return answer.value as T;
  }

  #fail(message: string): void {
    for (const [id, resolve] of this.#waiting) resolve({ id, error: { code: 'driver', message } });
    this.#waiting.clear();
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** A file of the tests as JavaScript that runs in dom0, against the compiled program there. */
export async function asModule(file: string): Promise<string> {
  const source = await readFile(path.join(projectDirectory, file), 'utf8');
  const directory = path.dirname(file);
  return stripTypeScriptTypes(source).replaceAll(/from '(\.[^']+)\.ts'/g, (_, specifier: string) => {
    const target = path.posix.join('/domsched/dist', directory, specifier);
    return `from '${target}.js'`;
  });
}
