/**
 * `node test/bench/unknown-kernel.bench.ts [--rounds N] [--pairs N] [--dump FILE]`: what `domsched ps` costs on a guest whose
 * kernel has a layout, has none and is read from its memory, and is read by what was kept of that: in turn, on a guest
 * with a kernel of the suites, live and on its dump (FILE, where there is one already: then on that alone). And what the
 * proof of the kernel's constants costs that comes before the first edit, done and found again.
 *
 * The second attach is compared with one to a known kernel pair by pair, A B B A: only the difference of neighbours means
 * something on a busy machine. The same is done with pairs that are both of the known kernel, which shows what chance
 * gives.
 *
 * Prints tables and writes `.cache/bench/unknown-kernel.json`. Exit code 0 even when a target is missed: a busy machine
 * is no bug.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { spanning, suiteKernels, suitesData } from '../../kernels/suites.ts';
import { bootImage, type LiveGuest } from '../live/guest.ts';
import { type BenchTarget, race, raceTable, record, type TimeSample, targetTable, timed } from './harness.ts';
import { type Estimate, estimate, FEWEST, pairsOf, turns } from './pairs.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '9' },
    pairs: { type: 'string', default: '30' },
    dump: { type: 'string' },
  },
});
for (const name of ['rounds', 'pairs'] as const) {
  if (!(Number(values[name]) >= FEWEST))
    throw new RangeError(`--${name} ${values[name]}: at least ${FEWEST}`);
}
const program = path.join(projectDirectory, 'dist', 'domsched.js');
const folder = await mkdtemp(path.join(tmpdir(), 'unknown-bench-'));
const cache = (name: string) => path.join(folder, name);
const knownHere = { XDG_DATA_HOME: suitesData, DOMSCHED_CACHE_DIR: cache('none') };
const unknownHere = { XDG_DATA_HOME: folder, DOMSCHED_CACHE_DIR: cache('second') };

try {
  await using guest = values.dump === undefined ? await boot() : undefined;
  const dump = values.dump ?? (await dumpOf(guest!, path.join(folder, 'guest')));
  const [known, first, second] = await race(
    [
      { name: 'known', command: psOf(`dump:${dump}`), env: knownHere },
      {
        name: 'unknown',
        command: psOf(`dump:${dump}`),
        env: { XDG_DATA_HOME: folder, DOMSCHED_CACHE_DIR: cache('first') },
        after: () => rm(cache('first'), { recursive: true, force: true }),
      },
      { name: 'unknown, again', command: psOf(`dump:${dump}`), env: unknownHere },
    ],
    { rounds: Number(values.rounds) },
  );
  console.log(raceTable([known!, first!, second!]));

  const again = [await compared('dump', `dump:${dump}`)];
  if (guest !== undefined) again.push(await compared('live', guest.connection));
  console.log(pairTable(again));

  const proofs = await proofCosts(dump);
  console.log(proofTable(proofs));

  const targets: BenchTarget[] = [
    {
      claim: 'CPU time of the first attach beyond that of a known kernel',
      found: first!.median.cpu - known!.median.cpu,
      limit: 1000,
      unit: 'ms',
    },
    {
      claim: 'peak memory of the first attach beyond that of a known kernel',
      found: (first!.median.memory - known!.median.memory) / 2 ** 20,
      limit: 150,
      unit: 'MiB',
    },
    ...again.flatMap(({ of, more }) =>
      (['cpu', 'wall'] as const).map((figure) => ({
        claim: `${of}: ${figure === 'cpu' ? 'CPU time' : 'time'} of the second attach beyond that of a known kernel`,
        found: more[figure].value,
        limit: 20,
        unit: 'ms',
      })),
    ),
  ];
  console.log(targetTable(targets));
  await record('unknown-kernel', { known, first, second, again, proofs, targets });
} finally {
  await rm(folder, { recursive: true, force: true });
}

function psOf(connection: string): readonly [string, ...string[]] {
  return [process.execPath, '--min-semi-space-size=16', program, 'ps', '--connect', connection];
}

/** A figure of pairs. */
type TimeDifferences = Record<keyof TimeSample, Estimate>;

interface Compared {
  readonly of: string;
  readonly known: TimeSample;
  /** By how much the second attach took longer than the attach to a known kernel, in ms. */
  readonly more: TimeDifferences;
  /** The same of two that are alike. */
  readonly chance: TimeDifferences;
  /** The shortest run of each side: what one takes that nobody has kept from its CPU. */
  readonly least: { readonly known: TimeSample; readonly again: TimeSample };
  readonly load: number;
}

async function compared(of: string, connection: string): Promise<Compared> {
  const command = psOf(connection);
  const sides = { known: { command, env: knownHere }, again: { command, env: unknownHere } };
  // Fills the caches.
  for (const side of [sides.known, sides.again]) await timed(side);
  const order = turns(Number(values.pairs));
  const runs = async (other: typeof sides.known) => {
    const found: TimeSample[] = [];
    for (const isOther of order) found.push(await timed(isOther ? other : sides.known));
    return found;
  };
  const differences = (samples: readonly TimeSample[], figure: keyof TimeSample) =>
    estimate(pairsOf(samples.map((sample) => sample[figure])).different.map(([a, b]) => b - a));
  const figures = (samples: readonly TimeSample[]): TimeDifferences => ({
    cpu: differences(samples, 'cpu'),
    wall: differences(samples, 'wall'),
  });
  const alike = await runs(sides.known);
  const different = await runs(sides.again);
  const middle = (figure: keyof TimeSample) => estimate(alike.map((sample) => sample[figure])).value;
  return {
    of,
    known: { cpu: middle('cpu'), wall: middle('wall') },
    more: figures(different),
    chance: figures(alike),
    least: {
      known: least(different.filter((_, i) => !order[i])),
      again: least(different.filter((_, i) => order[i])),
    },
    load: loadavg()[0]!,
  };
}

function least(samples: readonly TimeSample[]): TimeSample {
  return {
    cpu: Math.min(...samples.map(({ cpu }) => cpu)),
    wall: Math.min(...samples.map(({ wall }) => wall)),
  };
}

function pairTable(rows: readonly Compared[]): string {
  const table = new Table({
    head: [
      'guest',
      'figure',
      'known, ms',
      'second attach, ms more',
      'two known, ms more',
      'least of each, ms',
      'load',
    ],
    colAligns: ['left', 'left', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  const shown = ({ value, from, to }: Estimate) =>
    `${value.toFixed(1)} (${from.toFixed(1)} to ${to.toFixed(1)})`;
  for (const { of, known: alone, more, chance, least: best, load } of rows)
    for (const figure of ['cpu', 'wall'] as const)
      table.push([
        of,
        figure,
        alone[figure].toFixed(0),
        shown(more[figure]),
        shown(chance[figure]),
        `${best.known[figure].toFixed(0)}, ${best.again[figure].toFixed(0)}`,
        load.toFixed(1),
      ]);
  return table.toString();
}

/** CPU time in ms of the proof of all constants: by a process that has not proved any yet, and by one that has. */
interface ProofCosts {
  readonly anew: readonly [first: Estimate, later: Estimate];
  readonly kept: readonly [first: Estimate, later: Estimate];
}

async function proofCosts(dump: string): Promise<ProofCosts> {
  const script = path.join(projectDirectory, 'test', 'bench', 'proof-process.ts');
  const samples: Record<'anew' | 'kept', number[][]> = { anew: [], kept: [] };
  for (const isKept of [true, ...turns(Number(values.rounds))]) {
    // `/dev/null` is no folder: nothing can be kept there.
    const env = { ...knownHere, DOMSCHED_CACHE_DIR: isKept ? cache('proofs') : '/dev/null/none' };
    const { stdout } = await execa(process.execPath, [script, dump], { env });
    const proofs = JSON.parse(stdout) as { ms: number; proved: number }[];
    if (proofs.some(({ proved }) => proved === 0)) throw new Error('nothing was proved');
    samples[isKept ? 'kept' : 'anew'].push(proofs.map(({ ms }) => ms));
  }
  // The first fills the cache.
  samples.kept.shift();
  const costs = (of: number[][]) =>
    [estimate(of.map(([first]) => first!)), estimate(of.map(([, later]) => later!))] as const;
  return { anew: costs(samples.anew), kept: costs(samples.kept) };
}

function proofTable({ anew, kept }: ProofCosts): string {
  const table = new Table({
    head: ['proof of constants', 'first of a process, ms of CPU', 'later, ms of CPU'],
    colAligns: ['left', 'right', 'right'],
    style: { head: [], border: [] },
  });
  const shown = (costs: readonly Estimate[]) => costs.map(({ value }) => value.toFixed(1));
  table.push(['done', ...shown(anew)], ['found again', ...shown(kept)]);
  return table.toString();
}

/** A guest with a kernel from the middle of what the suites offer. */
async function boot(): Promise<LiveGuest> {
  const kernel = spanning(suiteKernels())[1];
  if (kernel === undefined) throw new Error('no kernel of the suites is here: run `make kernels-suites`');
  return bootImage(kernel.vmlinuz, { name: 'web', memory: 256 });
}

/** Its dump. It stands still from then on, so that it takes no time from what is measured. */
async function dumpOf(guest: LiveGuest, file: string): Promise<string> {
  const monitor = await guest.monitor();
  await monitor.execute('stop');
  const target = { paging: false, protocol: `file:${file}` };
  await monitor.execute('dump-guest-memory', target, 300_000);
  return file;
}
