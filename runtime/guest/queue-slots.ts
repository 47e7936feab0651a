import {
  hasMember,
  type ListLinks,
  lackOf,
  listCount,
  listLinks,
  membersOf,
  sizeOf,
} from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import { lockOf } from './locks.ts';
import { Shape } from './shape.ts';

/** Members of one CPU's `struct rq` that are read, and where each is in a record. */
export type QueueSlots = ReturnType<typeof queueSlots>;

/** Resolves the members of a run queue that are read. @throws DomschedError `layout-absent-member` */
export function queueSlots(layout: LayoutView) {
  const links = listLinks(layout);
  const unknown = unknownShape(layout);
  const lock = lockOf(layout, 'rq', 'lock');
  const found = {
    ...membersOf(layout, 'rq', ['nr_running', 'nr_switches?', 'curr', 'idle', 'stop?', 'dl_nr_running?']),
    ...membersOf(layout, 'rq', ['scx_nr_running?', 'rt_nr_running?', 'rt_queue?']),
    // Undefined for kernels without SMP.
    lockWord: lock.word,
  };
  const key = keyOf(layout, links);
  const o1 = unknown === undefined ? o1Members(layout) : undefined;
  const shape = new Shape([...Object.values(found), ...(o1?.all ?? [])]);
  const slots = shape.slots(found, links);
  const { rt_nr_running, rt_queue } = slots;
  return {
    ...slots,
    shape,
    lock,
    /** Counts of tasks that are in no queue that we walk: those with deadlines, and those of a loaded scheduler. */
    counted: [slots.dl_nr_running, slots.scx_nr_running].filter((count) => count !== undefined),
    o1: o1?.plan(shape, links),
    fair: unknown === undefined ? fairSlots(layout, links) : undefined,
    realtime:
      unknown !== undefined || rt_queue === undefined || rt_nr_running === undefined
        ? undefined
        : {
            nr_running: rt_nr_running,
            queue: rt_queue,
            priorities: listCount(found.rt_queue!, links),
            /** Queued entities may be groups of tasks; then real-time tasks are counted, not listed. */
            groups: hasMember(layout, 'sched_rt_entity', 'my_q'),
          },
    /** Why these queues are not walked: their shape is not a known one. */
    unknown,
    links,
    key,
  };
}

/** The words that change with every edit of the queue, read again after a snapshot of a running guest. */
function keyOf(layout: LayoutView, links: ListLinks) {
  const found = membersOf(layout, 'rq', ['nr_running', 'nr_switches?', 'curr']);
  const shape = new Shape(Object.values(found));
  return { ...shape.slots(found, links), shape };
}

/**
 * What is new about a kernel's queues, judged by their members; undefined for a known shape. Its processes can be
 * listed in any case.
 */
function unknownShape(layout: LayoutView): string | undefined {
  if (isO1(layout)) return undefined;
  if (!hasMember(layout, 'rq', 'cfs')) return 'rq has neither cfs nor two arrays';
  if (hasMember(layout, 'cfs_rq', 'h_curr') && !hasSingleQueue(layout))
    return 'cfs_rq.h_curr: the tasks of all groups are in one queue, and it has no sched_entity.h_load';
  const lack = lackOf(layout, {
    cfs_rq: ['nr_queued', 'root', 'curr'],
    sched_entity: ['run_node', 'on_rq', 'vruntime'],
    rb_node: ['__rb_parent_color'],
  });
  return lack === undefined ? undefined : `${lack} is not there`;
}

/**
 * Whether the tree of `rq.cfs` holds the tasks of all groups ("sched/eevdf: Move to a single runqueue", 7.3). Groups keep
 * their counts and sums, but no tree.
 */
export function hasSingleQueue(layout: LayoutView): boolean {
  return hasMember(layout, 'cfs_rq', 'h_curr') && hasMember(layout, 'sched_entity', 'h_weight');
}

function isO1(layout: LayoutView): boolean {
  return (['active', 'expired', 'arrays'] as const).every((name) => hasMember(layout, 'rq', name));
}

export type O1Slots = NonNullable<QueueSlots['o1']>;

/** O(1) arrays (2.6.0 to 2.6.22): the queue has two `prio_array`s. */
function o1Members(layout: LayoutView) {
  if (!isO1(layout)) return undefined;
  const own = membersOf(layout, 'rq', ['active', 'expired', 'arrays']);
  const { queue } = membersOf(layout, 'prio_array', ['queue']);
  const arraySize = sizeOf(layout, 'prio_array');
  const arrays = [0, 1].map((i) =>
    membersOf(layout, 'prio_array', ['nr_active', 'bitmap', 'queue'], own.arrays.offset + i * arraySize),
  );
  return {
    all: [...Object.values(own), ...arrays.flatMap((array) => Object.values(array))],
    plan: (shape: Shape, links: ListLinks) => ({
      /** `arrays` becomes its offset in the queue. */
      ...shape.slots(own, links),
      /** The two arrays in the copy of the queue. */
      copies: arrays.map((array) => shape.slots(array, links)),
      /** Offset of the lists in one array. */
      queueOffset: queue.offset,
      arraySize,
      priorities: listCount(queue, links),
    }),
  };
}

export type FairSlots = NonNullable<QueueSlots['fair']>;
export type RealtimeSlots = NonNullable<QueueSlots['realtime']>;

/** `struct cfs_rq` and `struct sched_entity` (since 2.6.23). */
function fairSlots(layout: LayoutView, links: ListLinks) {
  const { cfs } = membersOf(layout, 'rq', ['cfs?']);
  if (cfs === undefined) return undefined;
  const single = hasSingleQueue(layout);
  const queue = {
    ...membersOf(layout, 'cfs_rq', ['root', 'curr', 'rq?']),
    /** How many entities its tree and its CPU have. */
    linked: single
      ? membersOf(layout, 'cfs_rq', ['h_nr_queued']).h_nr_queued
      : membersOf(layout, 'cfs_rq', ['nr_queued']).nr_queued,
  };
  const own = membersOf(layout, 'sched_entity', ['run_node', 'on_rq', 'key', 'sched_delayed?']);
  const entity = {
    ...own,
    ...membersOf(layout, 'sched_entity', ['cfs_rq?', 'my_q?']),
    ...membersOf(layout, 'rb_node', ['__rb_parent_color', 'rb_left', 'rb_right'], own.run_node.offset),
  };
  const shape = new Shape(Object.values(queue));
  const entityShape = new Shape(Object.values(entity));
  return {
    ...shape.slots(queue, links),
    shape,
    single,
    /** Offset of `rq.cfs` in `rq`, the root of the CPU's fair queues. */
    rootOffset: cfs.offset,
    entity: { ...entityShape.slots(entity, links), shape: entityShape },
  };
}
