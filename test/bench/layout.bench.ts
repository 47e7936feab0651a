/**
 * `node test/bench/layout.bench.ts [--rounds N]`: reading members through readers of generated modules and through fields that
 * are resolved at run time, beside DataView calls with the offset written out; and what loading a kernel's layout
 * costs, from TypeScript and compiled. Prints tables and writes `.cache/bench/layout.json`. Exit code 0 even when a
 * target is missed: a busy machine is no bug.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { reader } from '../../runtime/layout/reader.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { LayoutView } from '../../runtime/layout/view.ts';
import { type BenchTarget, median, record, targetTable } from './harness.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '15' } } });
const rounds = Number(values.rounds);

/** Reads of one round, spread over a buffer as tasks are spread over memory. */
const READS = 2_000_000;
const STRUCTURES = 64;

const MEMBERS = [
  { struct: 'task_struct', path: 'pid', get: 'getInt32' },
  { struct: 'task_struct', path: 'se.vruntime', get: 'getBigUint64' },
  { struct: 'rq', path: 'nr_running', get: 'getUint32' },
] as const;

type Loop = (view: DataView, stride: number) => unknown;

/**
 * A loop of its own for each way, as a program that reads one member has: a shared one would measure how V8 handles
 * call sites that see several functions.
 */
function loop(expression: string, scope: Record<string, unknown>): Loop {
  const body = `return (view, stride) => {
    let last;
    for (let n = 0; n < ${READS}; n++) { const at = (n % ${STRUCTURES}) * stride; last = ${expression}; }
    return last;
  };`;
  return new Function(...Object.keys(scope), body)(...Object.values(scope)) as Loop;
}

const kernel = (await knownKernels()).find(({ schedulers }) => schedulers.includes('cfs'));
if (!kernel) throw new Error('no layout of a CFS kernel is generated: make kernels-debian');
const { layout } = await import(pathToFileURL(join(kernel.store, kernel.folder, 'index.ts')).href);
const any = new LayoutView(layout);

const table = new Table({
  head: ['member', 'by hand, ns', 'generated, ns', 'ratio', 'resolved field, ns', 'ratio'],
  colAligns: ['left', 'right', 'right', 'right', 'right', 'right'],
  style: { head: [], border: [] },
});
const reads: Record<string, Record<string, number>> = {};
for (const { struct, path, get } of MEMBERS) {
  const field = any.field(struct, path);
  const steps = path.split('.');
  const inner = steps.length > 1 ? layout[layout[struct][steps[0]!].struct][steps[1]!] : layout[struct][path];
  const base = field.offset - inner.offset;
  const loops: Record<string, Loop> = {
    hand: loop(`view.${get}(at + ${field.offset}, true)`, {}),
    generated: loop(base === 0 ? 'read(view, at)' : `read(view, at + ${base})`, { read: reader(inner) }),
    field: loop('field.read(view, at)', { field }),
  };
  const { size } = any.requireStruct(struct);
  const view = new DataView(new ArrayBuffer(size * STRUCTURES));
  for (let i = 0; i < view.byteLength; i++) view.setUint8(i, i * 31);
  const samples: Record<string, number[]> = { hand: [], generated: [], field: [] };
  const results = Object.values(loops).map((run) => run(view, size));
  if (new Set(results).size !== 1) throw new Error(`${struct}.${path} reads differ: ${results.join(', ')}`);
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(loops)) {
      // CPU, not wall: a round is short enough to be preempted as a whole on a busy machine.
      const start = process.cpuUsage();
      run(view, size);
      const { user, system } = process.cpuUsage(start);
      samples[name]!.push(((user + system) * 1000) / READS);
    }
  }
  const [hand, generated, resolved] = Object.values(samples).map(median) as [number, number, number];
  reads[`${struct}.${path}`] = { hand, generated, resolved };
  const ns = (value: number) => value.toFixed(2);
  table.push([
    `${struct}.${path}`,
    ns(hand),
    ns(generated),
    ns(generated / hand),
    ns(resolved),
    ns(resolved / hand),
  ]);
}
process.stdout.write(`${table.toString()}\n`);

/** CPU of bringing a layout in, milliseconds, in a process of its own. */
async function loadCost(file: string): Promise<number> {
  const script = `const c = process.cpuUsage(); await import(${JSON.stringify(pathToFileURL(file).href)});
    const { user, system } = process.cpuUsage(c); console.log((user + system) / 1000);`;
  const found: number[] = [];
  for (let round = 0; round < rounds; round++) {
    found.push(Number((await execa(process.execPath, ['--input-type=module', '-e', script])).stdout));
  }
  return median(found);
}

const source = join(kernel.store, kernel.folder, 'index.ts');
const compiled = join(projectDirectory, 'dist', 'generated', kernel.folder, 'index.js');
const load: Record<string, number> = { typescript: await loadCost(source) };
if (existsSync(compiled)) load.compiled = await loadCost(compiled);
for (const [name, ms] of Object.entries(load))
  process.stdout.write(`load ${kernel.folder}, ${name}: ${ms.toFixed(1)} ms of CPU\n`);

// In ns: a read by hand that V8 folds into its loop costs two or three cycles, of which one more is half as much again.
const worst = (way: 'generated' | 'resolved') =>
  Math.max(...Object.values(reads).map((found) => found[way]! - found.hand!));
const targets: BenchTarget[] = [
  { claim: 'generated read: more than one by hand', limit: 1, found: worst('generated'), unit: 'ns' },
  { claim: 'resolved field: more than one by hand', limit: 10, found: worst('resolved'), unit: 'ns' },
  ...(load.compiled === undefined
    ? []
    : [
        {
          claim: 'compiled load / TypeScript load',
          limit: 0.5,
          found: load.compiled / load.typescript!,
          unit: 'times',
        },
      ]),
];
process.stdout.write(
  `${targetTable(targets)}\n${await record('layout', { kernel: kernel.folder, rounds, reads, load })}\n`,
);
