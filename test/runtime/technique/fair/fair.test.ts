import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { Draft } from '../../../../runtime/edit/draft.ts';
import type { Edit } from '../../../../runtime/edit/edit.ts';
import type { Word } from '../../../../runtime/edit/member.ts';
import { commit } from '../../../../runtime/edit/transaction.ts';
import { knownKernels } from '../../../../runtime/layout/registry.ts';
import type { LayoutView } from '../../../../runtime/layout/view.ts';
import type { GuestVirtual } from '../../../../runtime/memory/address.ts';
import { FairSurgery } from '../../../../runtime/technique/fair/fair.ts';
import { fairMembers, hasGroups } from '../../../../runtime/technique/fair/members.ts';
import { checkFaults, checkOmissions, type Editable } from '../../edit/every-edit.ts';
import { TIF } from '../bits.ts';
import {
  EPOCH,
  FairModel,
  type FairModelTask,
  type ModelGroup,
  NOW,
  SCHED_IDLE,
  SCHED_NORMAL,
  type TaskSpec,
  WEIGHTS,
} from './fair-guest.ts';
import { singleQueue } from './single-queue.ts';
import { withoutGroups } from './without-groups.ts';

const layouts: { release: string; layout: LayoutView }[] = [];
for (const kernel of await knownKernels()) {
  // CFS, and EEVDF.
  if (/^6\.(1|12)\..*-cloud-amd64$/.test(kernel.release))
    layouts.push({ release: kernel.release, layout: await kernel.load() });
}
/** And one with a tree per CPU for the tasks of all groups. */
for (const { release } of layouts.filter((each) => each.release.startsWith('6.12.')))
  layouts.push({ release: `${release} with a single queue`, layout: await singleQueue(release) });
/** And the same without groups: one queue per CPU. */
const shapes = [...layouts];
for (const { release } of layouts.filter((each) => !each.release.endsWith('queue')))
  shapes.push({ release: `${release} without groups`, layout: await withoutGroups(release) });

function planned(model: FairModel, task: FairModelTask): Edit {
  const surgery = new FairSurgery(model.guest);
  const draft = new Draft(model.space);
  surgery.checkLocks(draft, task.address);
  const invariant = surgery.invariant(draft, task.address);
  const outcome = task.queued
    ? surgery.planDequeue(draft, task.address)
    : surgery.planEnqueue(draft, task.address);
  return draft.edit('test', [invariant], [outcome]);
}

/** Takes a queued task out, or puts one that is out in. */
async function perform(model: FairModel, task: FairModelTask): Promise<void> {
  await using guard = await model.domain.pause.acquire();
  await commit(model.domain, model.space, guard, planned(model, task));
  task.queued = !task.queued;
}

const signed = (value: bigint) => BigInt.asIntN(64, value);

/** Nodes of a tree in order by the test's own walk, which checks the rules of red-black trees by itself. */
function treeOf(t: ExecutionContext, model: FairModel, queue: GuestVirtual): bigint[] {
  const { cfs_rq, rb_node, sched_entity } = model.layout;
  const found: bigint[] = [];
  const depths = new Set<number>();
  const walk = (node: bigint, parent: bigint, blacks: number, red: boolean): void => {
    if (node === 0n) {
      depths.add(blacks);
      return;
    }
    const word = model.load(node, rb_node.__rb_parent_color);
    t.is(word & ~1n, parent, 'parent');
    const isRed = (word & 1n) === 0n;
    t.false(red && isRed, 'two red ones in a row');
    t.true(found.length < 500, 'the tree ends');
    const below = blacks + (isRed ? 0 : 1);
    walk(model.load(node, rb_node.rb_left), node, below, isRed);
    found.push(node - BigInt(sched_entity.run_node));
    walk(model.load(node, rb_node.rb_right), node, below, isRed);
  };
  walk(model.load(queue, cfs_rq.root), 0n, 0, true);
  t.is(depths.size, 1, 'as many black nodes on every way');
  const first = model.load(queue, cfs_rq.leftmost);
  t.is(first, found[0] === undefined ? 0n : found[0] + BigInt(sched_entity.run_node), 'leftmost');
  return found;
}

function listOf(t: ExecutionContext, model: FairModel, head: bigint): bigint[] {
  const { next, prev } = model.layout.list_head;
  const found: bigint[] = [];
  for (let node = model.load(head, next), last = head; ; last = node, node = model.load(node, next)) {
    t.is(model.load(node, prev), last);
    if (node === head || found.length > 500) return found;
    found.push(node);
  }
}

/** The guest's memory is what the model says. */
function assertMatches(t: ExecutionContext, model: FairModel): void {
  const { rq, groups, sched_entity, task_struct } = model.layout;
  for (const { cpu, address } of model.guest.queues) {
    const all = model.below(model.groups[0]!, cpu);
    t.is(model.load(address, rq.nr_running), BigInt(all.length));
    const listed = listOf(t, model, address + BigInt(rq.cfs_tasks));
    const nodes = all.map(({ entity }) => entity + BigInt(sched_entity.group_node));
    t.deepEqual(listed.toSorted(), nodes.toSorted(), 'cfs_tasks');
    if (groups === null) {
      t.is(model.groups.length, 1);
      assertQueue(t, model, model.groups[0]!, cpu);
      continue;
    }
    const leaf = address + BigInt(groups.rq.leaf_cfs_rq_list);
    t.is(model.load(address, groups.rq.tmp_alone_branch), leaf);
    const order = listOf(t, model, leaf).map((node) => node - BigInt(groups.cfs_rq.leaf_cfs_rq_list));
    for (const group of model.groups) {
      const queue = group.queues[cpu]!;
      const place = order.indexOf(queue);
      t.is(model.load(queue, groups.cfs_rq.on_list), place < 0 ? 0n : 1n);
      if (model.below(group, cpu).length > 0) t.true(place >= 0, 'a queue with tasks is listed');
      const above = group.parent === null ? -1 : order.indexOf(group.parent.queues[cpu]!);
      if (above >= 0) t.true(place < above, 'children first');
      assertQueue(t, model, group, cpu);
    }
  }
  for (const task of model.tasks) {
    t.is(model.load(task.address, task_struct.on_rq), task.queued ? 1n : 0n);
    t.is(model.load(task.entity, sched_entity.on_rq), task.queued ? 1n : 0n);
  }
}

function assertQueue(t: ExecutionContext, model: FairModel, group: ModelGroup, cpu: number): void {
  const { cfs_rq, groups, sched_entity, eevdf } = model.layout;
  const queue = group.queues[cpu]!;
  const entities = model.entitiesOf(group, cpu);
  const expect = (field: Word | undefined, value: number, what: string) => {
    if (field !== undefined) t.is(model.load(queue, field), BigInt(value), what);
  };
  const below = model.below(group, cpu).length;
  expect(cfs_rq.nr_queued, entities.length, 'nr_queued');
  expect(cfs_rq.h_nr_queued, below, 'h_nr_queued');
  expect(cfs_rq.h_nr_runnable, below, 'h_nr_runnable');
  expect(cfs_rq.h_nr_idle, model.idleBelow(group, cpu), 'h_nr_idle');
  expect(cfs_rq.idle_nr, entities.filter(({ idle }) => idle).length, 'idle_nr');
  expect(
    cfs_rq.weight,
    entities.reduce((sum, { weight }) => sum + (weight << 10), 0),
    'weight',
  );
  const entity = group.entities[cpu];
  if (entity !== undefined) {
    t.is(model.load(entity, sched_entity.on_rq), below > 0 ? 1n : 0n);
    t.is(model.load(entity, groups!.sched_entity.runnable_weight), BigInt(below), 'runnable_weight');
  }
  const tree = treeOf(t, model, queue);
  const inTree = model.treeOf(group, cpu);
  t.deepEqual(tree.toSorted(), inTree.map((one) => one.entity as bigint).toSorted(), 'in the tree');
  const field = eevdf?.sched_entity.deadline ?? sched_entity.vruntime;
  const keys = tree.map((one) => signed(model.load(one, field) - EPOCH));
  t.deepEqual(
    keys,
    keys.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0)),
    'order',
  );
  if (eevdf === undefined) return;
  const zero = model.load(queue, eevdf.cfs_rq.zero);
  const times = inTree.map((one) => ({
    ...one,
    time: signed(model.load(one.entity, sched_entity.vruntime) - zero),
  }));
  expect(
    eevdf.cfs_rq.avg_load,
    inTree.reduce((sum, { weight }) => sum + Number(weight), 0),
    'avg_load',
  );
  const sum = times.reduce((total, { time, weight }) => total + time * weight, 0n);
  t.is(signed(model.load(queue, eevdf.cfs_rq.avg_vruntime)), sum, 'avg_vruntime');
  for (const one of tree) assertAugmented(t, model, one);
}

/** What a node keeps is the minimum over its subtree, gathered by the test. */
function assertAugmented(t: ExecutionContext, model: FairModel, entity: bigint): void {
  const { rb_node, sched_entity, eevdf } = model.layout;
  const { min_vruntime, min_slice, max_slice, slice } = eevdf!.sched_entity;
  const node = (one: bigint) => one + BigInt(sched_entity.run_node);
  const subtree: bigint[] = [];
  const gather = (at: bigint): void => {
    if (at === 0n) return;
    subtree.push(at - BigInt(sched_entity.run_node));
    gather(model.load(at, rb_node.rb_left));
    gather(model.load(at, rb_node.rb_right));
  };
  gather(node(entity));
  const least = (values: bigint[]) => values.reduce((a, b) => (a < b ? a : b));
  const times = subtree.map((one) => signed(model.load(one, sched_entity.vruntime) - EPOCH));
  t.is(signed(model.load(entity, min_vruntime) - EPOCH), least(times));
  if (min_slice !== undefined)
    t.is(model.load(entity, min_slice), least(subtree.map((one) => model.load(one, slice))));
  if (max_slice !== undefined)
    t.is(model.load(entity, max_slice), -least(subtree.map((one) => -model.load(one, slice))));
}

/** What a task counts in the tree that it is in. */
function weightOf(model: FairModel, task: FairModelTask): bigint {
  const { single } = model.layout;
  return single === null ? BigInt(task.weight) : model.load(task.entity, single.sched_entity.h_weight);
}

/** Average of the run times in a queue, times its load, and that load: exact. */
function averageOf(model: FairModel, group: ModelGroup, cpu: number): { sum: bigint; load: bigint } {
  let sum = 0n;
  let load = 0n;
  const curr =
    model.layout.single === null ? null : model.tasks.find((one) => one.cpu === cpu && one.running);
  const standing: readonly { entity: GuestVirtual; weight: number | bigint }[] =
    curr === null ? model.entitiesOf(group, cpu) : model.treeOf(group, cpu);
  const running = curr ? [{ entity: curr.entity, weight: weightOf(model, curr) }] : [];
  for (const { entity, weight } of [...standing, ...running]) {
    sum += signed(model.load(entity, model.layout.sched_entity.vruntime) - EPOCH) * BigInt(weight);
    load += BigInt(weight);
  }
  return { sum, load };
}

const taskArbitrary: fc.Arbitrary<TaskSpec> = fc.record({
  cpu: fc.integer({ min: 0, max: 1 }),
  group: fc.nat({ max: 5 }),
  weight: fc.constantFrom(...WEIGHTS),
  policy: fc.constantFrom(SCHED_NORMAL, SCHED_NORMAL, SCHED_IDLE),
  vruntime: fc.integer({ min: -3_000_000, max: 3_000_000 }),
  slice: fc.constantFrom(700_000, 2_800_000, 3_000_000),
  queued: fc.boolean(),
});
const guestArbitrary = fc.record({
  parents: fc.array(fc.record({ parent: fc.nat({ max: 5 }), idle: fc.boolean() }), { maxLength: 5 }),
  tasks: fc.array(taskArbitrary, { minLength: 1, maxLength: 24 }),
  /** One task of each CPU runs. */
  busy: fc.boolean(),
});
type GuestSpec = typeof guestArbitrary extends fc.Arbitrary<infer T> ? T : never;

function build(layout: LayoutView, { parents, tasks, busy }: GuestSpec): FairModel {
  const model = new FairModel(layout, 2, hasGroups(layout) ? parents : []);
  const seen = new Set<number>();
  for (const spec of tasks) {
    model.addTask(spec, busy && !seen.has(spec.cpu));
    seen.add(spec.cpu);
  }
  model.write();
  return model;
}

/**
 * Queues that are empty leave the guest's list now and then, each by itself (update_blocked_averages()): before Linux
 * 5.14 a parent may go while its child is still there (cfs_rq_is_decayed(), commit a7b359fc6a37).
 * @param which a bit for each group
 */
function decay(model: FairModel, which = -1): void {
  const { groups, list_head } = model.layout;
  if (groups === null) return;
  const { cfs_rq } = groups;
  for (const { cpu } of model.guest.queues) {
    for (const [index, group] of model.groups.entries()) {
      const queue = group.queues[cpu]!;
      if (((which >> index) & 1) === 0) continue;
      if (model.below(group, cpu).length > 0 || model.load(queue, cfs_rq.on_list) === 0n) continue;
      const node = queue + BigInt(cfs_rq.leaf_cfs_rq_list);
      const [next, prev] = [model.load(node, list_head.next), model.load(node, list_head.prev)];
      model.put(prev, list_head.next, next);
      model.put(next, list_head.prev, prev);
      model.put(queue, cfs_rq.on_list, 0n);
    }
  }
}

for (const { release, layout } of shapes) {
  test(`${release}: random holds and releases leave queues, trees, lists and counts as a plain model says`, async (t) => {
    const steps = fc.array(fc.record({ pick: fc.nat(), decays: fc.nat({ max: 255 }) }), { maxLength: 16 });
    await fc.assert(
      fc.asyncProperty(guestArbitrary, steps, async (spec, sequence) => {
        const model = build(layout, spec);
        const movable = model.tasks.filter(({ running }) => !running);
        assertMatches(t, model);
        for (const { pick, decays } of sequence) {
          if (movable.length === 0) break;
          const task = movable[pick % movable.length]!;
          await perform(model, task);
          if (task.queued && model.layout.single !== null)
            t.is(weightOf(model, task), model.treeWeight(task), 'share of the CPU');
          decay(model, decays);
          assertMatches(t, model);
        }
        // All out, then all in.
        for (const task of movable) if (task.queued) await perform(model, task);
        assertMatches(t, model);
        decay(model);
        for (const task of movable) await perform(model, task);
        assertMatches(t, model);
      }),
      { numRuns: 60 },
    );
  });
}

for (const { release, layout } of layouts) {
  test(`${release}: a large queue stays a red-black tree`, async (t) => {
    const model = new FairModel(layout, 1);
    for (let i = 0; i < 150; i++) {
      const vruntime = ((i * 7919) % 1000) * 1000;
      model.addTask({
        cpu: 0,
        group: 0,
        weight: 1024,
        policy: SCHED_NORMAL,
        vruntime,
        slice: 3_000_000,
        queued: i % 3 > 0,
      });
    }
    model.write();
    for (let i = 0; i < 300; i++) {
      await perform(model, model.tasks[(i * 7907) % 150]!);
      if (i % 10 === 0) assertMatches(t, model);
    }
    assertMatches(t, model);
  });

  test(`${release}: who comes back has no advantage over those who stayed`, async (t) => {
    await fc.assert(
      fc.asyncProperty(guestArbitrary, fc.nat(), async (spec, pick) => {
        const model = build(layout, spec);
        const { sched_entity, cfs, eevdf, cfs_rq } = model.layout;
        const movable = model.tasks.filter(({ running, queued }) => !running && queued);
        if (movable.length === 0) return;
        const task = movable[pick % movable.length]!;
        const group = model.layout.single === null ? task.group : model.groups[0]!;
        const queue = group.queues[task.cpu]!;
        const before = signed(model.load(task.entity, sched_entity.vruntime) - EPOCH);
        const old = averageOf(model, group, task.cpu);
        await perform(model, task);
        const alone = model.load(queue, cfs_rq.h_nr_queued) === 0n;
        if (cfs !== undefined) model.put(queue, cfs.min_vruntime, EPOCH + 1_000_000n);
        await perform(model, task);
        const after = signed(model.load(task.entity, sched_entity.vruntime) - EPOCH);
        if (cfs !== undefined) {
          t.is(after, before < 1_000_000n ? 1_000_000n : before);
          return;
        }
        // The lag is what it was, but for what divisions and the bound of two slices take from it.
        const weight = weightOf(model, task);
        const normal = model.layout.single === null ? 1024n : 1n << 20n;
        const slices = model.below(group, task.cpu).map(({ slice }) => slice);
        // Two slices and at least a tick; since 6.19 the longest slice and a tick.
        const most =
          eevdf!.sched_entity.max_slice === undefined
            ? 2 * Math.max(task.slice, 2_000_000)
            : Math.max(...slices) + 4_000_000;
        const now = averageOf(model, group, task.cpu);
        const lagBefore = old.sum / old.load - before;
        const lagAfter = now.sum / now.load - after;
        const limit = (BigInt(most) * normal) / weight;
        const expected = alone ? 0n : lagBefore > limit ? limit : lagBefore < -limit ? -limit : lagBefore;
        const error = lagAfter - expected;
        // An inflated lag of L loses up to (W + w) / W of one unit; light queues more.
        const others = now.load - weight;
        const loss = 4n + (others === 0n ? 0n : (2n * now.load) / others);
        t.true(error <= loss && error >= -loss, `lag ${lagBefore} became ${lagAfter}`);
        const deadline = signed(model.load(task.entity, eevdf!.sched_entity.deadline) - EPOCH);
        t.is(deadline - after, (BigInt(task.slice) * normal) / weight);
      }),
      { numRuns: 150 },
    );
  });

  test(`${release}: an idle CPU is told to look, a busy one is not`, async (t) => {
    for (const busy of [false, true]) {
      const spec = { cpu: 0, group: 0, weight: 1024, policy: 0, vruntime: 0, slice: 3_000_000 };
      const model = new FairModel(layout, 1);
      if (busy) model.addTask({ ...spec, queued: true }, true);
      const task = model.addTask({ ...spec, queued: false });
      model.write();
      const curr = busy ? model.tasks[0]!.address : model.idleTasks[0]!;
      await perform(model, task);
      t.is(model.load(curr, model.layout.task_struct.thread_flags), busy ? 0n : TIF.NEED_RESCHED);
    }
  });

  test(`${release}: averages are brought up to the queue's time`, async (t) => {
    const model = new FairModel(layout, 1);
    const task = model.addTask({
      cpu: 0,
      group: 0,
      weight: 1024,
      policy: 0,
      vruntime: 0,
      slice: 3_000_000,
      queued: true,
    });
    model.write();
    const { sched_entity, cfs_rq } = model.layout;
    const load = (field: Word) => Number(model.load(task.entity, field));
    await perform(model, task);
    // Waiting is load: 40 ms of it move the average towards its weight.
    t.true(load(sched_entity.avg.load_avg) > 600 && load(sched_entity.avg.load_avg) < 1024);
    t.true(Number(NOW) - load(sched_entity.avg.last_update_time) < 1024);
    const waiting = load(sched_entity.avg.load_sum);
    model.put(model.groups[0]!.queues[0]!, cfs_rq.avg.last_update_time, NOW + 32n * 1024n * 1024n);
    await perform(model, task);
    // Being held is not: half of it is gone after 32 periods.
    t.true(Math.abs(load(sched_entity.avg.load_sum) / waiting - 0.5) < 0.001);
  });

  for (const queued of [true, false]) {
    const name = queued ? 'dequeue' : 'enqueue';
    const make = async (): Promise<Editable> => {
      const model = nested(layout, queued);
      return { domain: model.domain, space: model.space, plan: () => planned(model, model.tasks[0]!) };
    };

    test(`${release}: ${name}: a fault at every memory operation leaves the old image or the new one`, (t) =>
      checkFaults(t, name, make));

    test(`${release}: ${name}: leaving out any one write is noticed, and the guest put back`, (t) =>
      checkOmissions(t, name, make));
  }
}

for (const { release, layout } of layouts.filter((each) => fairMembers(each.layout).single !== null)) {
  test(`${release}: a task whose share changed while it was out keeps its lag in time`, async (t) => {
    const spec = { cpu: 0, weight: 1024, policy: SCHED_NORMAL, vruntime: 0, slice: 3_000_000, group: 0 };
    const model = new FairModel(layout, 1);
    const task = model.addTask({ ...spec, queued: false });
    for (const vruntime of [-500_000, 500_000]) model.addTask({ ...spec, vruntime, queued: true });
    model.write();
    const { eevdf, single, sched_entity } = model.layout;
    const { h_weight, h_inv_weight } = single!.sched_entity;
    // 8,000 ns of virtual time at twice the weight are 16,000 at this one.
    model.put(task.entity, eevdf!.sched_entity.vlag, 8_000n);
    model.put(task.entity, h_weight, 2n << 20n);
    model.put(task.entity, h_inv_weight, 77n);
    await perform(model, task);
    t.is(model.load(task.entity, h_weight), 1n << 20n);
    // The kernel computes it when it needs it.
    t.is(model.load(task.entity, h_inv_weight), 0n);
    t.is(model.load(task.entity, eevdf!.sched_entity.vlag), 16_000n);
    const { sum, load } = averageOf(model, model.groups[0]!, 0);
    const lag = sum / load - signed(model.load(task.entity, sched_entity.vruntime) - EPOCH);
    t.true(lag >= 15_998n && lag <= 16_002n, `its lag is ${lag}`);
  });

  test(`${release}: queues that contradict their one tree are not edited`, (t) => {
    const { cfs_rq, single, groups } = fairMembers(layout);
    const lies: readonly (readonly [string, (model: FairModel) => void, RegExp])[] = [
      [
        'h_curr',
        (model) => model.put(model.groups[1]!.queues[0]!, single!.cfs_rq.h_curr, 0n),
        /h_curr is not on/,
      ],
      ['count', (model) => model.put(model.groups[1]!.queues[0]!, cfs_rq.nr_queued, 9n), /nr_queued is 9/],
      [
        'way',
        (model) =>
          model.put(model.groups[1]!.entities[0]!, groups!.sched_entity.my_q, model.groups[2]!.queues[0]!),
        /does not stand for the queue below/,
      ],
      [
        'weight',
        (model) => model.put(model.tasks[2]!.entity, single!.sched_entity.h_weight, 5n),
        /avg_load is not/,
      ],
    ];
    for (const [what, lie, reason] of lies) {
      const model = new FairModel(layout, 1, [
        { parent: 0, idle: false },
        { parent: 1, idle: false },
      ]);
      const spec = { cpu: 0, weight: 1024, policy: SCHED_NORMAL, vruntime: 0, slice: 3_000_000 };
      model.addTask({ ...spec, group: 2, queued: true }, true);
      for (const group of [0, 1, 2]) model.addTask({ ...spec, group, vruntime: 100 * group, queued: true });
      model.write();
      const surgery = new FairSurgery(model.guest);
      const draft = new Draft(model.space);
      const { check } = surgery.invariant(draft, model.tasks[3]!.address);
      t.notThrows(() => check(draft), what);
      lie(model);
      t.throws(() => check(new Draft(model.space)), { message: reason }, what);
    }
  });
}

/** The one task of a group of a group, among others at each level; put out of the list of queues when it is out. */
function nested(layout: LayoutView, queued: boolean): FairModel {
  const model = new FairModel(layout, 1, [
    { parent: 0, idle: false },
    { parent: 1, idle: true },
  ]);
  const spec = { cpu: 0, weight: 1024, policy: SCHED_IDLE, vruntime: 1000, slice: 3_000_000 };
  model.addTask({ ...spec, group: 2, queued });
  for (let i = 0; i < 6; i++)
    model.addTask({ ...spec, group: 0, vruntime: 500 * i, weight: 335, queued: true });
  model.write();
  // The buddy of its queue, as after a wake-up.
  const { cfs_rq } = model.layout;
  if (queued) model.put(model.groups[2]!.queues[0]!, cfs_rq.buddies[0]!.field, model.tasks[0]!.entity);
  return model;
}
