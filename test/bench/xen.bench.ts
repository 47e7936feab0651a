/**
 * `node test/bench/xen.bench.ts [--rounds N]`: Table 1 of the paper on a live Xen (Debian's, in QEMU): what it costs
 * to read one word of a paused domain, step by step, with this project and with a C program that works as the paper's
 * prototype did, on the same domain in the same boot. Then what the paper has not: further words of the same tick, and
 * a whole tick over a domain with two vCPUs and 50 runnable tasks. Prints tables and writes `.cache/bench/xen.json`.
 * Exit code 0 even when a target is missed: a busy machine is no bug.
 */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { requireXen } from '../../kernels/xen.ts';
import { XenTestDomain } from '../live/xen-domain.ts';
import { OwnXenMachine } from '../live/xen-machine.ts';
import { asModule } from '../live/xen-remote.ts';
import { type BenchTarget, median, record, targetTable } from './harness.ts';

/** Of each step, in ns by round. */
export interface XenCosts {
  address: string;
  /** Runnable tasks. */
  tasks: number;
  pause: number[];
  translate: number[];
  read: number[];
  unpause: number[];
  /** One of many words of a tick. */
  words: number[];
  tick: number[];
  /** Of a tick, the run queues. */
  queues: number[];
  /** Of that, reading frames. */
  frames: number[];
}

type CostStep = 'pause' | 'translate' | 'map' | 'read' | 'unmap' | 'unpause' | 'cycle';
type ReferenceCosts = Record<CostStep, number[]>;

/** Tadokoro, Kourai, Chiba, Table 1, in µs: on their machine, for orientation. */
const PAPER = { pause: 14.84, translate: 68.95, map: 13.72, read: 0 };

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '400' } } });
const rounds = Number(values.rounds);
/** Each half of the rounds on its own turn, so that whatever else the machine does falls on both alike. */
const TURNS = 2;

await using xen = await OwnXenMachine.boot();
const { root } = requireXen();
const libraries = path.join(root, 'usr/lib/x86_64-linux-gnu');
await execa('gcc', [
  ...['-O2', '-Wall', '-o', path.join(xen.share, 'reference')],
  path.join(projectDirectory, 'test/bench/xen-reference.c'),
  ...[`-I${root}/usr/include`, `-L${libraries}`, `-Wl,-rpath-link,${libraries}`],
  ...['-lxenctrl', '-lxenforeignmemory'],
]);
await writeFile(path.join(xen.share, 'bench.mjs'), await asModule('test/bench/xen-in-dom0.ts'));
const domain = await XenTestDomain.create(xen, { name: 'bench', console: 0 });
await domain.ready();
await domain.start(
  ...Array.from({ length: 50 }, (_, i) => ({ kind: 'burner', name: `burner-${i}` }) as const),
);
const domid = await domain.id();

let ours: XenCosts | undefined;
let theirs: ReferenceCosts | undefined;
for (let turn = 0; turn < TURNS; turn++) {
  const part = Math.ceil(rounds / TURNS);
  const bench = await xen.must(`cp /host/bench.mjs /run; node /run/bench.mjs bench ${part}`, 1_800_000);
  const found = JSON.parse(bench) as XenCosts;
  ours = ours ? append(ours, found) : found;
  const reference = await xen.must(`/host/reference ${domid} ${found.address} ${part}`, 600_000);
  const other = JSON.parse(reference) as ReferenceCosts;
  theirs = theirs ? append(theirs, other) : other;
}
domain.close();
await report(ours!, theirs!);

function append<T extends object>(to: T, from: T): T {
  return Object.fromEntries(
    Object.entries(to).map(([key, value]) => {
      const more = (from as Record<string, unknown>)[key];
      return [key, Array.isArray(value) ? [...value, ...(more as unknown[])] : more];
    }),
  ) as T;
}

async function report(us: XenCosts, reference: ReferenceCosts): Promise<void> {
  const micro = (samples: readonly number[]) => median(samples) / 1000;
  const c = (step: CostStep) => micro(reference[step]);
  const rows: [string, number, number, number][] = [
    ['pause and unpause', PAPER.pause, c('pause') + c('unpause'), micro(us.pause) + micro(us.unpause)],
    ['translate the address', PAPER.translate, c('translate'), micro(us.translate)],
    ['map and unmap', PAPER.map, c('map') + c('unmap'), 0],
    ['read the word', PAPER.read, c('read'), micro(us.read)],
  ];
  const cycle = c('cycle');
  rows.push([
    'all of it',
    Object.values(PAPER).reduce((sum, value) => sum + value),
    cycle,
    rows.reduce((sum, [, , , own]) => sum + own, 0),
  ]);
  const table = new Table({
    head: ['one word of a paused domain, µs', 'paper', 'C and libxenctrl', 'domsched', 'C / domsched'],
    colAligns: ['left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const [name, paper, other, own] of rows) {
    table.push([
      ...[name, paper.toFixed(2), other.toFixed(2)],
      own === 0 ? 'kept' : own.toFixed(2),
      own === 0 ? '' : (other / own).toFixed(1),
    ]);
  }
  console.log(table.toString());

  const word = micro(us.words);
  const tick = micro(us.tick);
  const queues = micro(us.queues);
  const binding = micro(us.frames);
  const pause = micro(us.pause) + micro(us.unpause);
  const more = new Table({
    head: ['within one tick, µs', 'domsched', 'cycles of the C program'],
    colAligns: ['left', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const [name, value] of [
    ['one more word', word],
    [`run queues of two vCPUs, ${us.tasks} runnable tasks`, queues],
    ['  of that: the binding reads frames', binding],
    ['the whole tick, with its pause', tick],
    ['  of that: the binding', binding + pause],
  ] as const) {
    more.push([name, value.toFixed(2), (value / cycle).toFixed(4)]);
  }
  console.log(more.toString());
  const targets: BenchTarget[] = [
    {
      claim: 'one word within a warm tick against the whole cycle of the C program',
      found: (100 * word) / cycle,
      limit: 1,
      unit: '%',
    },
    {
      claim: `a warm tick over two vCPUs and ${us.tasks} runnable tasks`,
      found: tick / cycle,
      limit: 10,
      unit: 'cycles of the C program',
    },
  ];
  console.log(`medians over ${us.tick.length} ticks and ${reference.cycle.length} cycles`);
  console.log(targetTable(targets));
  await record('xen', { ours: us, reference, targets });
}
