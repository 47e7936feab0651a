/** What the demonstrations share: commands as a user would type them, shown, and two guests' progress. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { styleText } from 'node:util';
import { execa } from 'execa';
import { projectDirectory } from '../kernels/paths.ts';
import { suiteKernels } from '../kernels/suites.ts';
import type { FleetStatus } from '../runtime/fleet/status.ts';
import { bootImage, type LiveGuest } from './live/guest.ts';
import { until } from './live/until.ts';

const program = path.join(projectDirectory, 'dist/domsched.js');
const COUNTED_MS = 3_000;

export function say(text: string): void {
  const line = process.stdout.isTTY ? styleText('bold', text) : text;
  process.stdout.write(`\n${line}\n`);
}

export function kernelOf(suite: string) {
  const found = suiteKernels().find((kernel) => kernel.suite === suite && /-cloud-/.test(kernel.release));
  if (found === undefined) throw new Error(`no kernel of ${suite}: make demo fetches one`);
  return found;
}

/** A guest in which one process takes all CPU time that it gets, and counts. */
export async function bootBurner(name: string, vmlinuz: string, comm: string): Promise<LiveGuest> {
  return bootImage(vmlinuz, { name, cpus: 1, memory: 256, programs: [{ kind: 'burner', name: comm }] });
}

export interface Counted {
  readonly guest: LiveGuest;
  readonly comm: string;
}

/** What processes count by their own word, a while apart. */
export async function showProgress(when: string, all: readonly Counted[]): Promise<void> {
  const count = () => Promise.all(all.map(async ({ guest, comm }) => (await guest.progress(comm))[comm]!));
  const before = await count();
  await sleep(COUNTED_MS);
  const after = await count();
  const grown = all.map(({ comm }, i) => {
    const by = after[i]! - before[i]!;
    return `${comm} ${by > 0 ? `+${by}` : 'stands still'}`;
  });
  process.stdout.write(`  ${when}: ${grown.join(', ')}\n`);
}

/** A host of a demonstration: the program with folders of its own, so that a daemon of this machine is left alone. */
export class DemoHost {
  readonly directory: string;
  /** Before each command that is shown. */
  readonly #prompt: string;
  readonly #env: Readonly<Record<string, string>>;
  #daemon: ChildProcess | undefined;

  constructor(directory: string, prompt: string) {
    this.directory = directory;
    this.#prompt = prompt;
    this.#env = {
      DOMSCHED_RUNTIME_DIR: path.join(directory, 'run'),
      DOMSCHED_CACHE_DIR: path.join(directory, 'cache'),
      XDG_DATA_HOME: path.join(directory, 'data'),
    };
  }

  /** Runs one command as a user would, and shows what was typed. */
  async domsched(...args: string[]): Promise<void> {
    this.#show(args);
    await execa(process.execPath, [program, ...args], {
      cwd: projectDirectory,
      stdio: 'inherit',
      env: this.#env,
    });
  }

  run(config: string): void {
    this.#show(['run', '-c', config, '&']);
    const daemon = spawn(process.execPath, [program, 'run', '-c', config], {
      cwd: projectDirectory,
      env: { ...process.env, ...this.#env },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    this.#daemon = daemon;
    process.on('exit', () => daemon.kill());
  }

  /** Tells the daemon to end, and waits for it. */
  async end(): Promise<void> {
    const ended = once(this.#daemon!, 'exit');
    this.#daemon!.kill('SIGTERM');
    await ended;
  }

  /** Waits until the daemon has a process held, or let go. */
  async has(domain: string, comm: string, held: boolean): Promise<void> {
    await this.#answers(`${comm} is ${held ? 'held' : 'let go'}`, ['ps', domain, '--json'], (said) => {
      const rows = JSON.parse(said) as { comm: string; state: string }[];
      return (rows.find((row) => row.comm === comm)?.state === 'held') === held;
    });
  }

  /** Waits until the daemon goes on without another host. */
  async misses(host: string, config: string): Promise<void> {
    await this.#answers(`${host} is silent`, ['fleet', 'status', '-c', config, '--json'], (said) => {
      const { hosts } = JSON.parse(said) as FleetStatus;
      return hosts.find((each) => each.host === host)?.state === 'silent';
    });
  }

  async #answers(what: string, ask: readonly string[], isRight: (said: string) => boolean): Promise<void> {
    await until(
      what,
      async (swallow) => {
        const asked = await execa(process.execPath, [program, ...ask], { env: this.#env, reject: false });
        // The daemon is on its way.
        return asked.exitCode === 0 ? isRight(asked.stdout) : swallow(asked.stderr);
      },
      120_000,
      250,
    );
  }

  #show(args: readonly string[]): void {
    const shown = args.map((arg) =>
      path.relative(projectDirectory, arg).startsWith('.cache') ? path.relative(projectDirectory, arg) : arg,
    );
    process.stdout.write(`${this.#prompt}${shown.join(' ')}\n`);
  }
}
