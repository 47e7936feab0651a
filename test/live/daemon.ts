import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { requireKernel } from '../../kernels/cache.ts';
import { projectDirectory } from '../../kernels/paths.ts';
import { ControlClient } from '../../runtime/daemon/control-client.ts';
import { bootDebian, type DebianOptions, type LiveGuest } from './guest.ts';
import { bootO1, kernelFile, numbers, type O1Guest } from './o1.ts';

/** The program as it is installed: compiled, and quick to start. */
const program = path.join(projectDirectory, 'dist', 'domsched.js');

/** A line of the daemon's log. */
export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly comm?: string;
  readonly key?: string;
  readonly outcome?: string;
  readonly recovery?: string;
  readonly policy?: string;
}

/** Two guests of different schedulers, a daemon's files, and the daemon itself, started and killed at will. */
export class DaemonBench implements AsyncDisposable {
  readonly web: LiveGuest;
  readonly batch: O1Guest;
  readonly directory: string;
  #child: ChildProcess | undefined;

  private constructor(web: LiveGuest, batch: O1Guest, directory: string) {
    this.web = web;
    this.batch = batch;
    this.directory = directory;
  }

  /**
   * Boots Debian's 6.1 as `web` and the O(1) guest as `batch`.
   * @param o1 what the O(1) guest runs, see kernels/o1/README.md
   */
  static async boot(debian: DebianOptions, o1: string): Promise<DaemonBench> {
    const directory = await mkdtemp(path.join(tmpdir(), 'domsched-bench-'));
    let web: LiveGuest | undefined;
    let batch: O1Guest | undefined;
    try {
      web = await bootDebian({ name: 'web', ...debian });
      batch = await bootO1({
        name: 'batch',
        commandLine: o1,
        extraArguments: ['-qmp', `unix:${path.join(directory, 'batch.sock')},server=on,wait=off`],
      });
      const bench = new DaemonBench(web, batch, directory);
      // The kernels that were just booted, whatever is committed.
      const store = path.join(directory, 'domsched', 'layouts');
      for (const file of [kernelFile('base'), requireKernel('debian-6.1-cloud').vmlinux]) {
        await bench.domsched('extract', file, '--out', store, '--quiet');
      }
      return bench;
    } catch (error) {
      await batch?.stop();
      await web?.[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  get connections(): string[] {
    return [this.web.connection, `qemu:unix:${path.join(this.directory, 'batch.sock')}`];
  }

  get env(): NodeJS.ProcessEnv {
    return { XDG_DATA_HOME: this.directory, DOMSCHED_RUNTIME_DIR: path.join(this.directory, 'run') };
  }

  get configFile(): string {
    return path.join(this.directory, 'domsched.toml');
  }

  get #logFile(): string {
    return path.join(this.directory, 'log');
  }

  /** Writes the configuration. `rest` is TOML after the connections and the log. */
  async configure(rest: string, keys = 'interval = 0.1\nmaxHold = false'): Promise<void> {
    const connect = JSON.stringify(this.connections);
    const log = `[log]\nlevel = "debug"\nfile = ${JSON.stringify(this.#logFile)}`;
    await writeFile(this.configFile, `${keys}\nconnect = ${connect}\n${log}\n${rest}\n`);
  }

  /** Runs a command of the program. @throws execa's error when it fails */
  domsched(...args: string[]) {
    return execa(process.execPath, [program, ...args], { env: this.env, timeout: 300_000 });
  }

  /** Starts the daemon and does not wait. */
  start(): ChildProcess {
    this.#child = spawn(process.execPath, [program, 'run', '-c', this.configFile], {
      env: { ...process.env, ...this.env },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    return this.#child;
  }

  /** Ends the daemon. @returns its exit code, null when a signal ended it */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child!;
    this.#child = undefined;
    if (child.exitCode !== null) return child.exitCode;
    child.kill(signal);
    const [code] = (await once(child, 'exit')) as [number | null];
    return code;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child!.kill(signal);
  }

  /** Bytes of the log so far: where to read on from. */
  logged(): number {
    return existsSync(this.#logFile) ? readFileSync(this.#logFile).length : 0;
  }

  log(from = 0): LogLine[] {
    if (!existsSync(this.#logFile)) return [];
    const text = readFileSync(this.#logFile).subarray(from).toString();
    return text
      .split('\n')
      .filter((line) => line.endsWith('}'))
      .map((line) => JSON.parse(line) as LogLine);
  }

  /** Waits for a line of the log. @throws Error at the limit */
  async logs(wanted: (line: LogLine) => boolean, from = 0, limitMs = 300_000): Promise<LogLine> {
    return until(() => this.log(from).find(wanted), limitMs, 10);
  }

  async control(): Promise<ControlClient> {
    const file = path.join(this.directory, 'run', 'control');
    return until(async () => (await ControlClient.connect(file)) ?? undefined, 300_000, 50);
  }

  /** What the processes of both guests have counted so far. */
  async progress(...names: string[]): Promise<Record<string, number>> {
    const o1 = names.filter((name) => /^pi\d/.test(name));
    const debian = names.filter((name) => !/^pi\d/.test(name));
    const counted = debian.length > 0 ? await this.web.progress(...debian) : {};
    for (const name of o1) {
      const line = this.batch.lines.findLast((text) => text.startsWith(`${name} `));
      counted[name] = line === undefined ? 0 : numbers(line).progress!;
    }
    return counted;
  }

  /** Waits until each of these processes has counted on. @throws Error at the limit */
  async goesOn(...names: string[]): Promise<void> {
    const before = await this.progress(...names);
    await until(async () => {
      const now = await this.progress(...names);
      return names.every((name) => now[name]! > before[name]!) || undefined;
    }, 300_000);
  }

  /** @throws Error with what is wrong on the guests' consoles */
  checkConsoles(): void {
    this.web.checkConsole();
    const trouble = this.batch.lines.filter((line) => /BUG|exception|errors=[1-9]/.test(line));
    if (trouble.length > 0) throw new Error(`batch: ${trouble.slice(0, 10).join('\n')}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child !== undefined) await this.end('SIGKILL');
    await this.batch.stop();
    await this.web[Symbol.asyncDispose]();
    if (process.env.DOMSCHED_KEEP_LOG) await cp(this.#logFile, process.env.DOMSCHED_KEEP_LOG);
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Looks until there is something. @throws Error at the limit */
export async function until<T>(
  look: () => Promise<T | undefined> | T | undefined,
  limitMs = 60_000,
  everyMs = 100,
): Promise<T> {
  for (const end = performance.now() + limitMs; ; await sleep(everyMs)) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`not seen within ${limitMs} ms`);
  }
}
