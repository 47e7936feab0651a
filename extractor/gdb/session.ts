import { ExtractError } from '../error.ts';

/** Restricts gdb to reading types: no start-up files, no scripts from the file, no network, no pager. */
const QUIET = [
  ['auto-load', 'off'],
  ['debuginfod', 'enabled', 'off'],
  ['width', '0'],
  ['height', '0'],
  ['language', 'c'],
  ['confirm', 'off'],
];
const MARK = '@@domsched@@';
/** Commands per process: far below the kernel's limit on arguments. */
const BATCH = 400;
const TIMEOUT_MS = 120_000;
const MAX_OUTPUT = 256 << 20;

/** Runs gdb on one file. */
export class GdbSession {
  readonly #path: string;
  readonly #signal: AbortSignal | undefined;

  constructor(path: string, signal?: AbortSignal) {
    this.#path = path;
    this.#signal = signal;
  }

  static async installed(): Promise<boolean> {
    const { execa } = await import('execa');
    const { failed } = await execa('gdb', ['-nx', '-batch', '-ex', 'show version'], {
      reject: false,
      stdin: 'ignore',
      timeout: TIMEOUT_MS,
    });
    return !failed;
  }

  /**
   * The output of each command; null for one that fails.
   * @param commands must contain only names that the caller has checked
   * @throws ExtractError `engine-failed`
   */
  async ask(commands: readonly string[]): Promise<Map<string, string | null>> {
    const answers = new Map<string, string | null>();
    for (let start = 0; start < commands.length; start += BATCH) {
      const batch = commands.slice(start, start + BATCH);
      const output = await this.#run(batch);
      const parts = output.split(`${MARK}\n`).slice(1);
      if (parts.length !== batch.length) {
        throw new ExtractError(
          'engine-failed',
          `gdb answered ${parts.length} of ${batch.length} questions; use --engine dwarf`,
          { engine: 'gdb' },
        );
      }
      for (const [index, command] of batch.entries()) answers.set(command, parts[index]!.trimEnd() || null);
    }
    return answers;
  }

  async #run(commands: readonly string[]): Promise<string> {
    // Loaded on demand: the other engines start without it.
    const { execa } = await import('execa');
    const settings = QUIET.flatMap((words) => ['-iex', `set ${words.join(' ')}`]);
    const questions = commands.flatMap((command) => ['-ex', `echo ${MARK}\\n`, '-ex', command]);
    const result = await execa('gdb', ['-nx', '-batch', ...settings, ...questions, '--', this.#path], {
      reject: false,
      stdin: 'ignore',
      timeout: TIMEOUT_MS,
      maxBuffer: MAX_OUTPUT,
      stripFinalNewline: false,
      env: { LC_ALL: 'C' },
      ...(this.#signal && { cancelSignal: this.#signal }),
    });
    this.#signal?.throwIfAborted();
    // The exit code is that of the last command, which may ask for something that does not exist.
    if (result.exitCode === undefined) {
      throw new ExtractError('engine-failed', `gdb failed: ${result.shortMessage}; use --engine dwarf`, {
        engine: 'gdb',
      });
    }
    return result.stdout;
  }
}
