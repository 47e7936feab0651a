/**
 * `node test/bench/extract.bench.ts [--rounds N] [--part six|generation|all]`: domsched beside gdb, pahole and drgn on
 * the same job: the layout of six structures of Debian's 6.1 cloud kernel, then of every structure of it. Prints tables
 * and writes `.cache/bench/extract.json`. Exit code 0 even when a target is missed: a busy machine is no bug.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import ora from 'ora';
import { requireKernel } from '../../kernels/cache.ts';
import { projectDirectory } from '../../kernels/paths.ts';
import {
  type BenchTarget,
  type Contestant,
  type Result,
  race,
  raceTable,
  record,
  targetTable,
} from './harness.ts';

const STRUCTURES = ['task_struct', 'rq', 'cfs_rq', 'rt_prio_array', 'sched_entity', 'thread_info'];

/** What every tool is asked to print; drgn has no command for it. */
const DRGN_SCRIPT = `
import sys
import drgn
prog = drgn.Program()
prog.load_debug_info([sys.argv[1]])
for name in ${JSON.stringify(STRUCTURES)}:
    type = prog.type("struct " + name)
    print(name, type.size)
    for member in type.members:
        print(" ", member.name, member.bit_offset // 8, member.type.type_name())
`;

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, part: { type: 'string', multiple: true } },
});
const rounds = Number(values.rounds);
const kernel = requireKernel('debian-6.1-cloud').vmlinux;
const program = path.join(projectDirectory, 'dist', 'domsched.js');
/** What the program's first line gives Node. */
const nodeFlags = /^#!.* node (.*)$/m.exec(await readFile(program, 'utf8'))![1]!.split(' ');
const scratch = await mkdtemp(path.join(os.tmpdir(), 'domsched-bench-'));
const spinner = ora({ isSilent: !process.stderr.isTTY, discardStdin: false }).start();
const report = (text: string) => {
  spinner.text = text;
};

function domsched(...arguments_: string[]): Contestant['command'] {
  return [process.execPath, ...nodeFlags, program, 'extract', kernel, ...arguments_];
}

/** Structure sizes that a tool printed, to see that all did the same job. */
async function sizes(command: Contestant['command'], pattern: RegExp): Promise<Map<string, number>> {
  const { stdout } = await execa(command[0], command.slice(1), { maxBuffer: 1 << 30 });
  return new Map([...stdout.matchAll(pattern)].map(([, name, size]) => [name!, Number(size)]));
}

const paholeSize = /struct (\w+) \{(?:(?!\n\};?).)*?\n\s*\/\* size: (\d+)/gs;

async function sixStructures(): Promise<{ results: Result[]; targets: BenchTarget[] }> {
  const script = path.join(scratch, 'layout.py');
  await writeFile(script, DRGN_SCRIPT);
  const named = STRUCTURES.flatMap((name) => ['--struct', name]);
  const contestants = {
    dwarf: domsched('--engine', 'dwarf', ...named, '--json', '-'),
    btf: domsched('--engine', 'btf', ...named, '--json', '-'),
    pahole: ['pahole', '-F', 'dwarf', '-C', STRUCTURES.join(), kernel],
    paholeBtf: ['pahole', '-F', 'btf', '-C', STRUCTURES.join(), kernel],
    // Debian's python3-drgn is for Debian's own Python, whichever comes first in PATH.
    drgn: ['/usr/bin/python3', script, kernel],
    gdb: [
      'gdb',
      '-nx',
      '-batch',
      ...STRUCTURES.flatMap((name) => ['-ex', `ptype /o struct ${name}`]),
      kernel,
    ],
  } satisfies Record<string, Contestant['command']>;
  await requireEqualSizes(contestants);
  const results = await race(
    [
      { name: 'domsched, DWARF', command: contestants.dwarf },
      { name: 'domsched, BTF', command: contestants.btf },
      { name: 'pahole -F dwarf', command: contestants.pahole },
      { name: 'pahole -F btf', command: contestants.paholeBtf },
      { name: 'drgn', command: contestants.drgn },
      { name: 'gdb ptype /o', command: contestants.gdb },
    ],
    { rounds, report },
  );
  const [dwarf, first, btf, pahole, paholeBtf, drgn, gdb] = results.map(({ median }) => median);
  return {
    results,
    targets: [
      ratio('DWARF: wall time, of gdb', dwarf!.wall, gdb!.wall, 1 / 80),
      ratio('DWARF: wall time, of pahole -F dwarf', dwarf!.wall, pahole!.wall, 1 / 4),
      ratio('DWARF: wall time, of drgn', dwarf!.wall, drgn!.wall, 1 / 4),
      ratio('DWARF, first time: wall time, of gdb', first!.wall, gdb!.wall, 1 / 80),
      ratio('DWARF, first time: wall time, of pahole -F dwarf', first!.wall, pahole!.wall, 1 / 4),
      ratio('DWARF, first time: wall time, of drgn', first!.wall, drgn!.wall, 1 / 4),
      { claim: 'DWARF: peak memory', limit: 120, found: dwarf!.memory / 2 ** 20, unit: 'MiB' },
      ratio('BTF: wall time, of pahole -F btf', btf!.wall, paholeBtf!.wall, 3),
    ],
  };
}

async function requireEqualSizes(contestants: {
  dwarf: Contestant['command'];
  btf: Contestant['command'];
  pahole: Contestant['command'];
  drgn: Contestant['command'];
}): Promise<void> {
  report('comparing what the tools print');
  const reference = await sizes(contestants.drgn, /^(\w+) (\d+)$/gm);
  const others = {
    'domsched, DWARF': await layoutSizes(contestants.dwarf),
    'domsched, BTF': await layoutSizes(contestants.btf),
    'pahole -F dwarf': await sizes(contestants.pahole, paholeSize),
  };
  for (const [tool, found] of Object.entries(others)) {
    for (const name of STRUCTURES) {
      if (reference.get(name) === undefined || found.get(name) !== reference.get(name)) {
        throw new Error(
          `struct ${name} has ${reference.get(name)} bytes for drgn, ${found.get(name)} for ${tool}`,
        );
      }
    }
  }
}

async function layoutSizes(command: Contestant['command']): Promise<Map<string, number>> {
  const { stdout } = await execa(command[0], command.slice(1), { maxBuffer: 1 << 30 });
  const { structs } = JSON.parse(stdout) as { structs: Record<string, { size: number }> };
  return new Map(Object.entries(structs).map(([name, { size }]) => [name, size]));
}

/** The whole job of `npm run extract`, in a copy of the program's folder, so that `generated/` stays as it is. */
async function generation(): Promise<{ results: Result[]; targets: BenchTarget[] }> {
  const store = path.join(scratch, 'store');
  const results = await race(
    [
      { name: 'layout to JSON', command: domsched('--json', '/dev/null') },
      {
        name: 'layout to modules',
        command: domsched('--out', store),
        after: () => rm(store, { recursive: true, force: true }),
      },
    ],
    { rounds, report },
  );
  const [json, modules] = results.map(({ median }) => median);
  return {
    results,
    targets: [
      {
        claim: 'code generation: more than JSON',
        limit: 1000,
        found: modules!.wall - json!.wall,
        unit: 'ms',
      },
    ],
  };
}

async function everyStructure(): Promise<{ results: Result[]; targets: BenchTarget[] }> {
  const results = await race(
    [
      { name: 'domsched --all, ISF', command: domsched('--all', '--format', 'isf', '--json', '/dev/null') },
      { name: 'pahole -F dwarf, all', command: ['pahole', '-F', 'dwarf', kernel] },
    ],
    { rounds, report },
  );
  const [all, pahole] = results.map(({ median }) => median);
  return {
    results,
    targets: [
      ratio('all structures: wall time, of pahole -F dwarf', all!.wall, pahole!.wall, 3),
      { claim: 'all structures: peak memory', limit: 600, found: all!.memory / 2 ** 20, unit: 'MiB' },
    ],
  };
}

function ratio(claim: string, found: number, of: number, limit: number): BenchTarget {
  return { claim, limit, found: found / of, unit: 'times' };
}

try {
  const known = { six: sixStructures, generation, all: everyStructure };
  const parts: Record<string, { results: Result[]; targets: BenchTarget[] }> = {};
  for (const [name, measure] of Object.entries(known)) {
    if (!values.part || values.part.includes(name)) parts[name] = await measure();
  }
  spinner.stop();
  const { release } = JSON.parse(
    await readFile(path.join(path.dirname(kernel), 'provenance.json'), 'utf8'),
  ) as {
    release: string;
  };
  process.stdout.write(`${release}, medians of ${rounds} rounds\n`);
  for (const { results, targets } of Object.values(parts)) {
    process.stdout.write(`${raceTable(results)}\n${targetTable(targets)}\n`);
  }
  process.stdout.write(`${await record('extract', { release, rounds, ...parts })}\n`);
} finally {
  spinner.stop();
  await rm(scratch, { recursive: true, force: true });
}
