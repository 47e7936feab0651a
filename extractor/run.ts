import process from 'node:process';
import type { EngineName, KernelLayout, KernelMemory } from './contract.ts';
import type { KernelFile } from './elf/kernel-file.ts';
import { type OpenOptions, openKernelFile } from './elf/open.ts';
import { ExtractError } from './error.ts';
import { engineRequest, extractLayout } from './extract.ts';
import type { LoadMaker } from './modules.ts';
import { writeText } from './output.ts';
import { Progress } from './progress.ts';
import type { Selection } from './structures.ts';

/** The command line of `extract`, as parsed by commander. */
export interface ExtractCommandOptions {
  engine: EngineName | 'auto';
  struct?: string[];
  all?: true;
  json?: string;
  format: 'domsched' | 'isf';
  check?: true;
  crossCheck?: true;
  out?: string;
  symbols?: string;
  base?: string;
  config?: string;
  debugRoot?: string[];
  quiet?: true;
}

/** A file's path, a copy of a kernel in memory, or the build-id of a kernel whose debug file a server has. */
type Source = string | KernelMemory | { readonly buildId: string };

/** State shared by all parts of one run. */
interface ExtractRun {
  modules: LoadMaker;
  file: KernelFile;
  base: KernelFile | undefined;
  options: ExtractCommandOptions;
  progress: Progress;
  signal: AbortSignal;
}

/**
 * Runs `extract`.
 * @returns the exit code
 * @throws ExtractError; then nothing is changed
 */
export async function run(
  source: Source,
  options: ExtractCommandOptions,
  modules: LoadMaker,
): Promise<0 | 1> {
  using interruption = new Interruption();
  const progress = new Progress(options.quiet === true);
  const { signal } = interruption;
  try {
    await using file = await open(source, options, { progress: progress.report, signal });
    await using base =
      options.base === undefined
        ? undefined
        : await openKernelFile(options.base, { progress: progress.report, signal });
    const state: ExtractRun = { modules, file, base, options, progress, signal };
    if (options.crossCheck) return await crossCheckFile(state);
    const layout = await extractLayout(file, {
      engine: options.engine,
      selection: selectionOf(options),
      ...(base ? { base } : {}),
      progress: progress.report,
      signal,
    });
    await interruption.check();
    progress.stop();
    if (options.check) return await checkLayout(layout, state);
    if (options.json !== undefined) await writeJson(layout, options.json, state);
    else await generateModules(layout, state);
    return 0;
  } catch (error) {
    // Whatever error an aborted step has, the user's signal is the reason.
    throw signal.aborted ? signal.reason : error;
  } finally {
    progress.stop();
  }
}

async function open(
  source: Source,
  { symbols, config, debugRoot }: ExtractCommandOptions,
  report: { progress: OpenOptions['progress']; signal: AbortSignal },
): Promise<KernelFile> {
  const roots = debugRoot ? { debugRoots: debugRoot } : {};
  if (typeof source === 'string') return openKernelFile(source, { symbols, config, ...roots, ...report });
  if ('buildId' in source) {
    const { debugFileOf } = await import('./debuginfod.ts');
    const path = await debugFileOf(source.buildId, report.signal);
    return openKernelFile(path, { symbols, config, ...report });
  }
  return (await import('./memory/memory-kernel.ts')).MemoryKernel.open(source);
}

function selectionOf(options: ExtractCommandOptions): Selection {
  if (options.all) return { kind: 'all' };
  if (!options.struct) return { kind: 'scheduler' };
  // Generated modules serve the runtime, which always needs the scheduler's structures.
  const scheduler = options.json === undefined && !options.check && !options.crossCheck;
  return { kind: 'named', names: options.struct, scheduler };
}

async function writeJson(
  layout: KernelLayout,
  path: string,
  { file, options, signal }: ExtractRun,
): Promise<void> {
  if (options.format === 'isf') {
    const { isfText, toIsf } = await import('./isf.ts');
    await writeText(path, isfText(toIsf(layout, file.symbols(), await file.sha256(signal))));
  } else await writeText(path, `${JSON.stringify(layout, null, 2)}\n`);
}

async function generateModules(
  layout: KernelLayout,
  { modules, options, signal }: ExtractRun,
): Promise<void> {
  const { defaultPlace, generate } = await modules();
  const place = options.out === undefined ? defaultPlace() : { outDir: options.out };
  const written = await generate(layout, { ...place, signal });
  if (options.quiet) return;
  process.stderr.write(`${summary(layout)} -> ${written.path}\n`);
  if (!Object.hasOwn(layout.symbols, 'init_task')) {
    process.stderr.write(
      `${layout.source.file} has no addresses, and no guest can be read without them: extract it again with ` +
        "--symbols and the System.map of its build or the guest's /proc/kallsyms\n",
    );
  }
}

function summary({ kernel, source, structs, symbols }: KernelLayout): string {
  const count = (record: object, noun: string) => `${Object.keys(record).length} ${noun}`;
  return `${kernel.release}: ${count(structs, 'structures')}, ${count(symbols, 'symbols')} (${source.engine})`;
}

async function checkLayout(layout: KernelLayout, { modules, options }: ExtractRun): Promise<0 | 1> {
  const { check, defaultPlace } = await modules();
  const place = options.out === undefined ? defaultPlace() : { outDir: options.out };
  const differences = await check(layout, { ...place, partial: options.struct !== undefined });
  if (differences.length === 0) {
    if (!options.quiet) process.stderr.write(`${summary(layout)}: as generated\n`);
    return 0;
  }
  await writeText('-', differences.map(({ message }) => `${message}\n`).join(''));
  throw new ExtractError(
    'check-mismatch',
    `the generated modules differ from ${layout.source.file} in ${differences.length} places; ` +
      'extract it without --check to generate them anew',
    { differences: differences.length },
  );
}

/** Number of disagreements printed; the rest are only counted. */
const SHOWN = 50;

async function crossCheckFile({ file, base, options, progress, signal }: ExtractRun): Promise<0 | 1> {
  const { crossCheck } = await import('./cross-check.ts');
  const request = engineRequest({
    selection: selectionOf(options),
    ...(base ? { base } : {}),
    progress: progress.report,
    signal,
  });
  const rows = await crossCheck(file, { ...request, thorough: true });
  progress.stop();
  if (options.json !== undefined) await writeText(options.json, `${JSON.stringify(rows, null, 2)}\n`);
  else {
    const { crossCheckTable } = await import('./cross-check-table.ts');
    await writeText('-', crossCheckTable(rows, SHOWN));
  }
  const total = rows.reduce((sum, { disagreements }) => sum + disagreements.length, 0);
  if (total === 0) return 0;
  throw new ExtractError(
    'cross-check-mismatch',
    `the engines disagree on ${total} facts of ${file.path}; use none of its layouts before that is explained`,
    { file: file.path, disagreements: total },
  );
}

/** Turns SIGINT, SIGTERM and SIGHUP into an abort, so that unfinished files and started programs are cleaned up. */
class Interruption {
  static readonly #SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  readonly #controller = new AbortController();

  constructor() {
    for (const name of Interruption.#SIGNALS) process.on(name, this.#abort);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  readonly #abort = (name: NodeJS.Signals): void => {
    // A second signal ends the program at once.
    this[Symbol.dispose]();
    this.#controller.abort(
      new ExtractError('interrupted', `interrupted by ${name}; nothing was changed`, { signal: name }),
    );
  };

  /** Lets pending signals arrive after a long synchronous step, and throws if one did. */
  async check(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.signal.throwIfAborted();
  }

  [Symbol.dispose](): void {
    for (const name of Interruption.#SIGNALS) process.off(name, this.#abort);
  }
}
