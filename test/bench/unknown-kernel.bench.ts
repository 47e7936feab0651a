/**
 * `node test/bench/unknown-kernel.bench.ts [--rounds N] [--dump FILE]`: what `domsched ps` costs on a guest whose kernel has
 * a layout, has none and is read from its memory, and is read by what was kept of that. In turn, on one dump of a guest
 * with a kernel of the suites (FILE, where there is one already).
 *
 * Prints tables and writes `.cache/bench/unknown-kernel.json`. Exit code 0 even when a target is missed: a busy machine
 * is no bug.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { projectDirectory } from '../../kernels/paths.ts';
import { spanning, suiteKernels, suitesData } from '../../kernels/suites.ts';
import { bootImage } from '../live/guest.ts';
import { type BenchTarget, race, raceTable, record, targetTable } from './harness.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '9' }, dump: { type: 'string' } },
});
const folder = await mkdtemp(path.join(tmpdir(), 'unknown-bench-'));
try {
  const dump = values.dump ?? (await dumpOf(path.join(folder, 'guest')));
  const program = path.join(projectDirectory, 'dist', 'domsched.js');
  const command = ['node', '--min-semi-space-size=16', program, 'ps', '--connect', `dump:${dump}`] as const;
  const cache = (name: string) => path.join(folder, name);
  const [known, first, second] = await race(
    [
      { name: 'known', command, env: { XDG_DATA_HOME: suitesData, DOMSCHED_CACHE_DIR: cache('none') } },
      {
        name: 'unknown',
        command,
        env: { XDG_DATA_HOME: folder, DOMSCHED_CACHE_DIR: cache('first') },
        after: () => rm(cache('first'), { recursive: true, force: true }),
      },
      {
        name: 'unknown, again',
        command,
        env: { XDG_DATA_HOME: folder, DOMSCHED_CACHE_DIR: cache('second') },
      },
    ],
    { rounds: Number(values.rounds) },
  );
  console.log(raceTable([known!, first!, second!]));
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
    {
      claim: 'CPU time of the second attach beyond that of a known kernel',
      found: second!.median.cpu - known!.median.cpu,
      limit: 20,
      unit: 'ms',
    },
  ];
  console.log(targetTable(targets));
  await record('unknown-kernel', { known, first, second, targets });
} finally {
  await rm(folder, { recursive: true, force: true });
}

/** A dump of a guest with a kernel from the middle of what the suites offer. */
async function dumpOf(file: string): Promise<string> {
  const kernel = spanning(suiteKernels())[1];
  if (kernel === undefined) throw new Error('no kernel of the suites is here: run `make kernels-suites`');
  await using guest = await bootImage(kernel.vmlinuz, { name: 'web', memory: 256 });
  const monitor = await guest.monitor();
  await monitor.execute('stop');
  const target = { paging: false, protocol: `file:${file}` };
  await monitor.execute('dump-guest-memory', target, 300_000);
  return file;
}
