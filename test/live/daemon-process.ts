import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs';
import { cp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { ExecaError, execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import type { DaemonControl } from '../../runtime/control/control.ts';
import { openDaemon } from '../../runtime/control/open.ts';
import { until } from './until.ts';

/** The program as it is installed: compiled, and quick to start. */
const PROGRAM = path.join(projectDirectory, 'dist', 'domsched.js');

const LET_GO_ATTEMPTS = 3;
/** Lines of the log that are shown when the one that is waited for did not come. */
const SHOWN_LINES = 30;

/** A line of the daemon's log. */
export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly comm?: string;
  readonly key?: string;
  readonly outcome?: string;
  readonly recovery?: string;
  readonly policy?: string;
  readonly reason?: string;
  readonly domain?: string;
}

/** What a daemon that was killed left on disk. */
export interface Remains {
  /** Records of processes that are held. */
  readonly held: readonly string[];
  /** Records of edits that were being written. No two edits ever have the same name. */
  readonly edits: readonly string[];
}

/** The daemon with files of its own, started and killed at will. */
export class DaemonProcess implements AsyncDisposable {
  /** Of its configuration and log. Whoever made it removes it. */
  readonly directory: string;
  /** Where its journal and socket are: in memory, as /run is where the daemon is installed. */
  readonly #run = mkdtempSync(path.join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'domsched-run-'));
  /** `--connect` values. */
  readonly connections: readonly string[];
  readonly #within: readonly string[];
  readonly #program: string;
  #child: ChildProcess | undefined;

  /**
   * @param within a command that runs the daemon, and is replaced by it
   * @param program of another build
   */
  constructor(
    directory: string,
    connections: readonly string[],
    within: readonly string[] = [],
    program = PROGRAM,
  ) {
    this.directory = directory;
    this.connections = connections;
    this.#within = within;
    this.#program = program;
  }

  get env(): NodeJS.ProcessEnv {
    return { XDG_DATA_HOME: this.directory, DOMSCHED_RUNTIME_DIR: this.#run };
  }

  get configFile(): string {
    return path.join(this.directory, 'domsched.toml');
  }

  get #logFile(): string {
    return path.join(this.directory, 'log');
  }

  /** Of the daemon that was started last. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Puts the layouts of kernels, whatever is committed, where the daemon finds them. */
  async extract(...kernels: readonly string[]): Promise<void> {
    const store = path.join(this.directory, 'domsched', 'layouts');
    for (const file of kernels) await this.domsched('extract', file, '--out', store, '--quiet');
  }

  /**
   * Writes the configuration. `rest` is TOML after the connections and the log. Nobody is guaranteed anything unless
   * `keys` say so: a test may watch a hold for as long as it likes.
   */
  async configure(rest: string, keys = 'interval = 0.1\nmaxHold = false'): Promise<void> {
    const connect = JSON.stringify(this.connections);
    const log = `[log]\nlevel = "debug"\nfile = ${JSON.stringify(this.#logFile)}`;
    const guarantee = keys.includes('guarantee') ? '' : 'guarantee = 0\n';
    await writeFile(this.configFile, `${guarantee}${keys}\nconnect = ${connect}\n${log}\n${rest}\n`);
  }

  /** Runs a command of the program. @throws execa's error when it fails */
  domsched(...args: string[]) {
    return execa(process.execPath, [this.#program, ...args], { env: this.env, timeout: 300_000 });
  }

  /**
   * With no daemon: lets everything go, and looks again. A command that a busy host gave no time says "try again", and
   * is: somebody who cannot be let go never is.
   * @returns what the last command says
   * @throws execa's error of a command that failed otherwise, or too often
   */
  async letAllGo(): Promise<string> {
    const connect = this.connections.flatMap((connection) => ['--connect', connection]);
    for (let attempt = 1; ; attempt++) {
      try {
        await this.domsched('release', '--all', '--timeout', '60', ...connect);
        return (await this.domsched('release', '--all', '--timeout', '60', ...connect)).stdout;
      } catch (error) {
        if (!(error instanceof ExecaError) || attempt === LET_GO_ATTEMPTS) throw error;
        const lines = String(error.stderr).trim().split('\n');
        if (!lines.every((line) => line.endsWith('[timeout]'))) throw error;
        console.log(`# again: ${lines.join('; ')}`);
      }
    }
  }

  /** Starts the daemon and does not wait. */
  start(): ChildProcess {
    const [command, ...args] = [
      ...this.#within,
      process.execPath,
      this.#program,
      'run',
      '-c',
      this.configFile,
    ];
    this.#child = spawn(command!, args, {
      env: { ...process.env, ...this.env },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    return this.#child;
  }

  /** Ends the daemon. @returns its exit code, null when a signal ended it */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child!;
    this.#child = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const gone = once(child, 'exit');
    child.kill(signal);
    const [code] = (await gone) as [number | null];
    return code;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child!.kill(signal);
  }

  /** Looks for an edit that is being written without letting go of the CPU: it is over in a moment. */
  seesEdit(limitMs: number): boolean {
    const directory = path.join(this.#run, 'edits');
    for (const end = performance.now() + limitMs; performance.now() < end; ) {
      if (recordsIn(directory).length > 0) return true;
    }
    return false;
  }

  /** What is on disk of holds and edits. */
  remains(): Remains {
    return { held: recordsIn(path.join(this.#run, 'held')), edits: recordsIn(path.join(this.#run, 'edits')) };
  }

  /** Bytes of the log so far: where to read on from. */
  logged(): number {
    return existsSync(this.#logFile) ? statSync(this.#logFile).size : 0;
  }

  /** Lines of the log that are whole. */
  log(from = 0): LogLine[] {
    if (!existsSync(this.#logFile)) return [];
    return tailOf(this.#logFile, from)
      .split('\n')
      .filter((line) => line.endsWith('}'))
      .map((line) => JSON.parse(line) as LogLine);
  }

  /** Waits for a line of the log. @throws Error at the limit, with the last lines that came */
  async logs(wanted: (line: LogLine) => boolean, from = 0, limitMs = 300_000): Promise<LogLine> {
    const look = (swallow: (error: unknown) => undefined) => {
      const lines = this.log(from);
      return lines.find(wanted) ?? swallow(JSON.stringify(lines.slice(-SHOWN_LINES), null, 1));
    };
    return until('a line of the log', look, limitMs, 10);
  }

  async control(): Promise<DaemonControl> {
    const file = path.join(this.#run, 'control');
    return until('the daemon answers', () => openDaemon([], file), 300_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child !== undefined) await this.end('SIGKILL');
    rmSync(this.#run, { recursive: true, force: true });
    if (process.env.DOMSCHED_KEEP_LOG) await cp(this.#logFile, process.env.DOMSCHED_KEEP_LOG);
  }
}

function recordsIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith('.json'));
  } catch {
    return [];
  }
}

/** The log of a long test is long: what was read once is not read again. */
function tailOf(file: string, from: number): string {
  const handle = openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(Math.max(0, fstatSync(handle).size - from));
    const read = readSync(handle, bytes, 0, bytes.length, from);
    return bytes.toString('utf8', 0, read);
  } finally {
    closeSync(handle);
  }
}
