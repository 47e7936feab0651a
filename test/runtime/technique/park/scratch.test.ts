import test from 'ava';
import { execa } from 'execa';
import { knownKernels } from '../../../../runtime/layout/registry.ts';
import type { AnyLayout } from '../../../../runtime/layout/types.ts';
import { LayoutView } from '../../../../runtime/layout/view.ts';
import { noTrap, parkMembers } from '../../../../runtime/technique/park/members.ts';
import { type Hole, holesOf, homesFor } from '../../../../runtime/technique/park/scratch.ts';
import { layoutOf, realKernels } from '../../../real-kernels.ts';

const kernels = realKernels();

/** Holes of 8 bytes and more that pahole finds between the members of one structure. */
async function paholeHoles(file: string, struct: string): Promise<Omit<Hole, 'owner'>[]> {
  const { stdout } = await execa('pahole', ['-F', 'btf', '-C', struct, file]);
  const holes: { offset: number; size: number }[] = [];
  let end = 0;
  for (const line of stdout.split('\n')) {
    const member = /\/\*\s+(\d+)(?::\s*\d+)?\s+(\d+) \*\/$/.exec(line);
    // Members of unnamed structures and unions are within one, whose closing line comes last and counts.
    if (member) end = Number(member[1]) + Number(member[2]);
    const hole = /XXX (\d+) bytes hole/.exec(line);
    if (hole && Number(hole[1]) >= 8) holes.push({ offset: end, size: Number(hole[1]) });
    const tail = /^\s*\/\* padding: (\d+) \*\//.exec(line);
    if (tail && Number(tail[1]) >= 8) holes.push({ offset: end, size: Number(tail[1]) });
  }
  return holes;
}

test("holes are pahole's, in the structures that may lend theirs, in every kernel at hand", async (t) => {
  let compared = 0;
  for (const kernel of kernels) {
    const { release, vmlinux } = kernel;
    const layout = await layoutOf(kernel);
    for (const struct of ['task_struct', 'sched_entity', 'rq', 'cfs_rq']) {
      const ours = holesOf(layout, struct).filter(({ owner, size }) => owner === struct && size >= 8);
      const theirs = await paholeHoles(vmlinux, struct);
      t.deepEqual(
        ours.map(({ offset, size }) => ({ offset, size })),
        theirs,
        `${release} ${struct}`,
      );
      compared += ours.length;
    }
  }
  t.log(`${compared} holes compared`);
  t.true(compared >= 4);
});

/** A kernel with one structure of every kind of member. */
const sample = new LayoutView({
  $kernel: { release: 'sample' },
  $symbols: {},
  $percpu: [],
  $constants: {},
  $enums: {},
  task_struct: {
    $name: 'task_struct',
    $sourceName: 'task_struct',
    $kind: 'struct',
    $size: 160,
    $anonymous: [{ offset: 8, size: 24, kind: 'union', type: 'union {...}' }],
    state: { offset: 0, size: 4, type: 'int', kind: 'int' },
    small: { offset: 8, size: 1, type: 'char', kind: 'int', in: 0 },
    bit: { offset: 33, size: 4, type: 'unsigned int', kind: 'int', bitOffset: 1, bitSize: 1 },
    se: { offset: 64, size: 64, type: 'struct sched_entity', kind: 'struct', struct: 'sched_entity' },
    stats: { offset: 128, size: 24, type: 'struct stats', kind: 'struct', struct: 'stats' },
  },
  sched_entity: {
    $name: 'sched_entity',
    $sourceName: 'sched_entity',
    $kind: 'struct',
    $size: 64,
    on_rq: { offset: 0, size: 4, type: 'int', kind: 'int' },
    array: { offset: 32, size: 16, type: 'char [16]', kind: 'array', length: 16 },
  },
  stats: {
    $name: 'stats',
    $sourceName: 'stats',
    $kind: 'struct',
    $size: 24,
    first: { offset: 0, size: 4, type: 'int', kind: 'int' },
  },
} as unknown as AnyLayout);

test('unions, bit fields and arrays are used; padding of embedded structures is found and whose it is', (t) => {
  t.deepEqual(holesOf(sample, 'task_struct'), [
    { offset: 4, size: 4, owner: 'task_struct' },
    { offset: 32, size: 1, owner: 'task_struct' },
    { offset: 37, size: 27, owner: 'task_struct' },
    { offset: 68, size: 28, owner: 'sched_entity' },
    { offset: 112, size: 16, owner: 'sched_entity' },
    { offset: 132, size: 20, owner: 'stats' },
    { offset: 152, size: 8, owner: 'task_struct' },
  ]);
});

test('homes are aligned, overlap no other, and are never in the padding of a structure that is cleared as a whole', (t) => {
  t.deepEqual(homesFor(sample, 'task_struct', 16), [40, 72, 112]);
  t.deepEqual(homesFor(sample, 'task_struct', 24), [40, 72]);
  t.deepEqual(homesFor(sample, 'task_struct', 8), [40, 48, 56, 152, 72, 80, 88, 112, 120]);
  t.deepEqual(homesFor(sample, 'task_struct', 32), []);
});

test('every kernel that can park has homes for both words', async (t) => {
  let kernels = 0;
  for (const kernel of await knownKernels()) {
    const layout = await kernel.load();
    if (noTrap(layout) !== null) continue;
    const { workHome, irqWorkHomes, irq_work } = parkMembers(layout);
    const inHole = (struct: string, start: number, size: number) =>
      holesOf(layout, struct).some((hole) => hole.offset <= start && start + size <= hole.offset + hole.size);
    t.is(workHome % 8, 0);
    t.true(inHole('task_struct', workHome, 16), kernel.release);
    t.true(irqWorkHomes.length > 0, kernel.release);
    for (const home of irqWorkHomes) {
      t.is(home % 8, 0);
      t.true(inHole('rq', home, irq_work.size), kernel.release);
    }
    kernels += 1;
  }
  t.true(kernels >= 6);
});
