/**
 * `node test/fuzz/run.ts [TARGET…] [--runs N] [--keep]`: fuzzes readers of foreign bytes, guided by coverage (libFuzzer in
 * Node, by Jazzer.js). Starts from the seeds and the kept corpus; a finding is left as a file, with the command that
 * repeats it. `--keep` puts what reached something new into `test/fuzz/corpus/`.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { build, type Plugin } from 'esbuild';
import { execa } from 'execa';
import { CORPUS, loadTarget, targetFile, targetNames } from './corpus.ts';
import { fuzzerCommand } from './fuzzer.ts';

const ROOT = path.join(import.meta.dirname, '../..');
const WORK = path.join(ROOT, '.cache/fuzz');
const DEFAULT_RUNS = 20_000;
/** An input that takes longer hangs: one of 20 ms has taken 10 s beside a busy host's other work. Milliseconds. */
const HANG_MS = 120_000;
const MEMORY_MIB = 2048;
/** What is kept of a target: so many inputs, and bytes in all. */
const KEEP_COUNT = 48;
const KEEP_BYTES = 96 * 1024;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: String(DEFAULT_RUNS) },
    keep: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs);
const unknown = positionals.filter((name) => !targetNames.includes(name));
if (unknown.length > 0 || !Number.isSafeInteger(runs) || runs < 1) {
  process.stderr.write(
    `usage: node test/fuzz/run.ts [TARGET…] [--runs N] [--keep]\ntargets: ${targetNames.join(' ')}\n`,
  );
  process.exit(2);
}

let failed = false;

/** Modules find layouts, libdwarf and each other by where they are: in one file they still are where they were. */
const whereTheyWere: Plugin = {
  name: 'where-they-were',
  setup(bundle) {
    bundle.onLoad({ filter: /\.ts$/ }, ({ path: file }) => ({
      loader: 'ts',
      contents: readFileSync(file, 'utf8')
        .replaceAll('import.meta.url', JSON.stringify(pathToFileURL(file).href))
        .replaceAll('import.meta.dirname', JSON.stringify(path.dirname(file))),
    }));
  },
};

interface Folders {
  /** Where the fuzzer puts what is new, and takes up again the next time. */
  readonly found: string;
  readonly seeds: string;
  readonly kept: string;
  /** The target in one module, which the fuzzer instruments. */
  readonly module: string;
}

async function prepare(name: string): Promise<Folders> {
  const folders = {
    found: path.join(WORK, name, 'found'),
    seeds: path.join(WORK, name, 'seeds'),
    kept: path.join(CORPUS, name),
    module: path.join(WORK, `${name}.mjs`),
  };
  for (const folder of [folders.found, folders.seeds, folders.kept]) mkdirSync(folder, { recursive: true });
  const target = await loadTarget(name);
  for (const [index, bytes] of (await target.seeds()).entries())
    writeFileSync(path.join(folders.seeds, `seed-${index}`), bytes);
  await build({
    stdin: {
      contents: `import * as target from ${JSON.stringify(targetFile(name))};
        import { outcomeOf } from ${JSON.stringify(path.join(import.meta.dirname, 'target.ts'))};
        export async function fuzz(bytes) { await outcomeOf(target, bytes); }`,
      resolveDir: import.meta.dirname,
    },
    outfile: folders.module,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    packages: 'external',
    plugins: [whereTheyWere],
    logLevel: 'warning',
  });
  return folders;
}

async function fuzz(name: string, { found, seeds, kept, module }: Folders): Promise<string> {
  const options = [
    `-runs=${runs}`,
    `-rss_limit_mb=${MEMORY_MIB}`,
    `-artifact_prefix=${path.join(WORK, name)}/`,
  ];
  const { all, exitCode } = await fuzzer(module, [...options, '-print_final_stats=1', found, seeds, kept]);
  if (exitCode !== 0) {
    failed = true;
    const input = /Test unit written to (\S+)/.exec(all)?.[1] ?? '(none was written)';
    return `FAILED\n${all.split('\n').slice(-40).join('\n')}\ninput: ${input}`;
  }
  const [, coverage, features] = /.*\bcov: (\d+) ft: (\d+)/s.exec(all) ?? [];
  const seconds = /^Done \d+ runs in (\d+) second/m.exec(all)?.[1];
  const peak = /peak_rss_mb:\s+(\d+)/.exec(all)?.[1];
  const reached = `${runs} inputs, ${coverage} places of the code in ${features} ways`;
  // The fuzzer may end before it has told.
  return seconds === undefined ? reached : `${reached}, ${seconds} s, peak ${peak} MiB`;
}

async function fuzzer(
  module: string,
  options: readonly string[],
): Promise<{ all: string; exitCode: number }> {
  const [command, ...before] = await fuzzerCommand();
  const filter = ['--includes', path.relative(ROOT, WORK), '--timeout', String(HANG_MS)];
  const result = await execa(command!, [...before, module, ...filter, '--', ...options], {
    cwd: ROOT,
    all: true,
    reject: false,
  });
  return { all: result.all, exitCode: result.exitCode ?? -1 };
}

/** Takes inputs that reached something new into the corpus: where there are too many, some of every size. */
function keep({ found, kept }: Folders): number {
  const files = [kept, found].flatMap((folder) => readdirSync(folder).map((file) => path.join(folder, file)));
  const inputs = files
    .map((file) => ({ name: path.basename(file), bytes: readFileSync(file) }))
    .filter(({ bytes }) => bytes.length > 0)
    .sort((a, b) => a.bytes.length - b.bytes.length || (a.name < b.name ? -1 : 1));
  const step = Math.max(1, inputs.length / KEEP_COUNT);
  let total = 0;
  const chosen = inputs.filter(({ bytes }, index) => {
    if (index > 0 && Math.floor(index / step) === Math.floor((index - 1) / step)) return false;
    total += bytes.length;
    return total <= KEEP_BYTES;
  });
  rmSync(kept, { recursive: true });
  mkdirSync(kept);
  for (const { name, bytes } of chosen) writeFileSync(path.join(kept, name), bytes);
  return chosen.length;
}

for (const name of positionals.length > 0 ? positionals : targetNames) {
  const folders = await prepare(name);
  const line = await fuzz(name, folders);
  process.stdout.write(`${name}: ${line}\n`);
  if (values.keep) process.stdout.write(`${name}: ${keep(folders)} inputs kept\n`);
}
process.exitCode = failed ? 1 : 0;
