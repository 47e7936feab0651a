import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import Table from 'cli-table3';
import { execa } from 'execa';
import { replaceWhole } from '../../kernels/make-once.ts';
import { projectDirectory } from '../../kernels/paths.ts';

/** One run of a command, from the start of its process to its end. */
export interface Sample {
  /** Milliseconds on the wall. */
  wall: number;
  /** Milliseconds of CPU, user and system, of the process and its children. */
  cpu: number;
  /** Largest resident set of the process or any of its children, bytes. */
  memory: number;
}

export interface Contestant {
  name: string;
  command: readonly [program: string, ...arguments_: string[]];
  cwd?: string;
  env?: Record<string, string>;
  /** Undoes what a run left behind, outside the measured time. */
  after?: () => Promise<void>;
}

export interface Result {
  name: string;
  command: readonly string[];
  samples: Sample[];
  /** Of each figure by itself. */
  median: Sample;
}

/** The middle value; the mean of the two middle ones of an even number. @throws RangeError for no values */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('no median of nothing');
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** The smallest value that `part` (0 to 1) of all values do not exceed. @throws RangeError for no values */
export function percentile(values: readonly number[], part: number): number {
  if (values.length === 0) throw new RangeError('no percentile of nothing');
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)]!;
}

/**
 * Runs a command once. GNU time (Debian's package `time`) starts it: a child's peak memory counts from that of the
 * process which forked it, and GNU time is small where Node is not.
 * @throws the child's failure, with its standard error
 */
export async function measure(contestant: Pick<Contestant, 'command' | 'cwd' | 'env'>): Promise<Sample> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'domsched-bench-'));
  try {
    const report = path.join(folder, 'time');
    const start = process.hrtime.bigint();
    await execa('/usr/bin/time', ['--output', report, '--format', '%U %S %M', ...contestant.command], {
      stdout: 'ignore',
      ...(contestant.cwd ? { cwd: contestant.cwd } : {}),
      env: contestant.env ?? {},
    });
    const wall = Number(process.hrtime.bigint() - start) / 1e6;
    const [user, system, kibibytes] = (await readFile(report, 'utf8')).trim().split(' ').map(Number);
    return { wall, cpu: (user! + system!) * 1000, memory: kibibytes! * 1024 };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** As {@link measure}, of time alone, by the ms: GNU time counts CPU time in hundredths of a second. */
export async function timed({ command, env }: Pick<Contestant, 'command' | 'env'>): Promise<TimeSample> {
  // Bash, because `time` of a POSIX shell is as coarse.
  const script = 'TIMEFORMAT="%3R %3U %3S"; time "$@" > /dev/null';
  const { stderr } = await execa('bash', ['-c', script, 'time', ...command], { env: env ?? {} });
  const [wall, user, system] = stderr.trim().split('\n').at(-1)!.split(' ').map(Number);
  return { wall: wall! * 1000, cpu: (user! + system!) * 1000 };
}

/** A {@link Sample} without its memory. */
export type TimeSample = Pick<Sample, 'wall' | 'cpu'>;

/**
 * Runs all contestants in turn, round after round, after one round that does not count (caches fill there), so that
 * whatever else the machine does falls on all of them alike.
 */
export async function race(
  contestants: readonly Contestant[],
  options: { rounds?: number; report?: (text: string) => void } = {},
): Promise<Result[]> {
  const rounds = options.rounds ?? 5;
  const samples = new Map<string, Sample[]>(contestants.map(({ name }) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const contestant of contestants) {
      options.report?.(`${round === 0 ? 'warm-up' : `round ${round} of ${rounds}`}: ${contestant.name}`);
      const sample = await measure(contestant);
      await contestant.after?.();
      if (round > 0) samples.get(contestant.name)!.push(sample);
    }
  }
  return contestants.map(({ name, command }) => {
    const own = samples.get(name)!;
    const of = (figure: keyof Sample) => median(own.map((sample) => sample[figure]));
    return {
      name,
      command,
      samples: own,
      median: { wall: of('wall'), cpu: of('cpu'), memory: of('memory') },
    };
  });
}

/** A claim and what was found. */
export interface BenchTarget {
  claim: string;
  /** The limit, in the unit of `found`. */
  limit: number;
  found: number;
  unit: string;
}

/** Whether a target is met: at most its limit. */
export function isMet({ found, limit }: BenchTarget): boolean {
  return found <= limit;
}

/** The table of a race, for a person. */
export function raceTable(results: readonly Result[]): string {
  const table = new Table({
    head: ['tool', 'wall, ms', 'CPU, ms', 'peak, MiB'],
    colAligns: ['left', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const { name, median: figures } of results) {
    table.push([
      name,
      figures.wall.toFixed(0),
      figures.cpu.toFixed(0),
      (figures.memory / 2 ** 20).toFixed(0),
    ]);
  }
  return table.toString();
}

/** The table of targets, for a person. */
export function targetTable(targets: readonly BenchTarget[]): string {
  const table = new Table({
    head: ['target', 'at most', 'found', ''],
    colAligns: ['left', 'right', 'right', 'left'],
    style: { head: [], border: [] },
  });
  for (const target of targets) {
    const show = (value: number) => `${Number(value.toPrecision(3))} ${target.unit}`.trim();
    table.push([target.claim, show(target.limit), show(target.found), isMet(target) ? 'met' : 'missed']);
  }
  return table.toString();
}

/** Writes `.cache/bench/<name>.json`: the figures and the machine they are of. @returns its path */
export async function record(name: string, figures: object): Promise<string> {
  const folder = path.join(projectDirectory, '.cache', 'bench');
  const file = path.join(folder, `${name}.json`);
  const git = await execa('git', ['rev-parse', 'HEAD'], { cwd: projectDirectory, reject: false });
  const commit = git.exitCode === 0 ? git.stdout : null;
  const machine = {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cpus: os.availableParallelism(),
    memory: os.totalmem(),
    load: os.loadavg(),
    kernel: os.release(),
    node: process.version,
  };
  const when = new Date().toISOString();
  const text = `${JSON.stringify({ when, commit, machine, ...figures }, null, 2)}\n`;
  return replaceWhole(file, (fresh) => writeFile(fresh, text));
}
