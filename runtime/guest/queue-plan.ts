import { DomschedError } from '../error.ts';
import type { LayoutView } from '../layout/view.ts';
import { anyField, field, listLayout, type Place, requiredField } from './fields.ts';
import { type LockPlan, planLock } from './locks.ts';
import { type BlockSlot, type ListLayout, type PointerSlot, Shape, type Slot } from './shape.ts';

/** Slots are in records of the shape of the same plan; undefined where the kernel has no such member. */

/** `struct rq`: one per CPU. */
export interface QueuePlan {
  readonly shape: Shape;
  readonly lock: LockPlan;
  /** Undefined for kernels without SMP. */
  readonly lockWord: Slot | undefined;
  readonly nrRunning: Slot;
  readonly nrSwitches: Slot | undefined;
  readonly curr: PointerSlot;
  readonly idle: PointerSlot;
  readonly stop: PointerSlot | undefined;
  readonly o1: O1Plan | undefined;
  readonly fair: FairPlan | undefined;
  readonly realtime: RealtimePlan | undefined;
  /**
   * Counts of tasks that are in no queue which is walked: those with deadlines (`struct dl_rq`, since 3.14), and those
   * of a loaded scheduler ("sched_ext: Implement BPF extensible scheduler class", 6.12).
   */
  readonly counted: readonly Slot[];
  /** Why these queues are not walked: their shape is none of those that are known. */
  readonly unknown: string | undefined;
  readonly links: ListLayout;
  /** The words that change with every edit of the queue: read again after a snapshot of a running guest. */
  readonly key: KeyPlan;
}

export interface KeyPlan {
  readonly shape: Shape;
  readonly nrRunning: Slot;
  readonly nrSwitches: Slot | undefined;
  readonly curr: PointerSlot;
}

/** O(1) arrays (2.6.0 to 2.6.22). */
export interface O1Plan {
  readonly active: PointerSlot;
  readonly expired: PointerSlot;
  /** Offset of `arrays` in the structure, and where its copy is. */
  readonly arraysOffset: number;
  readonly arrays: readonly ArrayPlan[];
  /** Of one array: offset of its lists. */
  readonly queueOffset: number;
  readonly arraySize: number;
  readonly priorities: number;
}

/** One `prio_array` in the copy of its queue. */
export interface ArrayPlan {
  readonly nrActive: Slot;
  readonly bitmap: BlockSlot;
  readonly queue: BlockSlot;
}

/** `struct cfs_rq` and `struct sched_entity` (since 2.6.23). */
export interface FairPlan {
  /** Of `rq.cfs` in `rq`. */
  readonly rootOffset: number;
  readonly shape: Shape;
  /** Entities at this level, `curr` and groups included. */
  readonly nrQueued: Slot;
  readonly root: PointerSlot;
  readonly curr: PointerSlot;
  /** Back pointer to `rq`, with group scheduling. */
  readonly rq: PointerSlot | undefined;
  readonly entity: EntityPlan;
}

export interface EntityPlan {
  readonly shape: Shape;
  readonly nodeOffset: number;
  readonly parentColor: PointerSlot;
  readonly right: PointerSlot;
  readonly left: PointerSlot;
  readonly onRq: Slot;
  /** By which the tree is ordered: virtual run time, with EEVDF the deadline. */
  readonly key: Slot;
  /** EEVDF only. */
  readonly delayed: Slot | undefined;
  /** With group scheduling: the queue that it is in, and the one it stands for. */
  readonly cfsRq: PointerSlot | undefined;
  readonly myQueue: PointerSlot | undefined;
}

/** `struct rt_rq` (since 2.6.23). */
export interface RealtimePlan {
  readonly nrRunning: Slot;
  readonly queueOffset: number;
  readonly queue: BlockSlot;
  readonly priorities: number;
  /**
   * With CONFIG_RT_GROUP_SCHED what is queued may be groups of tasks: then real-time tasks are counted, not listed.
   */
  readonly groups: boolean;
}

/** Resolves what is read of a run queue. @throws DomschedError `layout-absent-member` */
export function planQueue(layout: LayoutView): QueuePlan {
  const optional = (path: string) => field(layout, 'rq', path);
  const required = (path: string) => requiredField(layout, 'rq', path);
  // "sched: Wrap rq::lock access", 5.14: the lock may be another CPU's, and its member is __lock.
  const lockName = optional('__lock') === undefined ? 'lock' : '__lock';
  const lockPlan = planLock(layout, 'rq', lockName);
  const fields = {
    lock: lockPlan.word ?? required(lockName),
    nrRunning: required('nr_running'),
    nrSwitches: optional('nr_switches'),
    // "sched: Split scheduler and execution contexts", 6.14, put `curr` beside `donor`.
    curr: required('curr'),
    idle: required('idle'),
    stop: optional('stop'),
    active: optional('active'),
    expired: optional('expired'),
    arrays: optional('arrays'),
    rtNrRunning: optional('rt.rt_nr_running'),
    rtQueue: optional('rt.active.queue'),
    dlNrRunning: optional('dl.dl_nr_running'),
    extNrRunning: optional('scx.nr_running'),
  };
  const shape = new Shape(Object.values(fields));
  const links = listLayout(layout);
  const unknown = unknownShape(layout);
  const o1 = unknown === undefined ? planO1(layout, shape, fields, links) : undefined;
  const fair = unknown === undefined ? planFair(layout) : undefined;
  const realtime = unknown === undefined ? planRealtime(layout, shape, fields, links) : undefined;
  const keyShape = new Shape([fields.nrRunning, fields.nrSwitches, fields.curr]);
  return {
    shape,
    lock: lockPlan,
    lockWord: lockPlan.kind === 'none' ? undefined : shape.number(fields.lock),
    nrRunning: shape.number(fields.nrRunning),
    nrSwitches: shape.number(fields.nrSwitches),
    curr: shape.pointer(fields.curr),
    idle: shape.pointer(fields.idle),
    stop: shape.pointer(fields.stop),
    o1,
    fair,
    realtime,
    counted: [fields.dlNrRunning, fields.extNrRunning].flatMap((count) => shape.number(count) ?? []),
    unknown,
    links,
    key: {
      shape: keyShape,
      nrRunning: keyShape.number(fields.nrRunning),
      nrSwitches: keyShape.number(fields.nrSwitches),
      curr: keyShape.pointer(fields.curr),
    },
  };
}

/**
 * What is new about a kernel's queues, by their members; undefined for a shape that is known. Its processes can be
 * listed all the same.
 */
function unknownShape(layout: LayoutView): string | undefined {
  const has = (struct: string, path: string) => field(layout, struct, path) !== undefined;
  if (has('rq', 'active') && has('rq', 'expired') && has('rq', 'arrays')) return undefined;
  if (!has('rq', 'cfs')) return 'rq has neither cfs nor two arrays';
  // "sched/eevdf: Move to a single runqueue", 7.3: tasks of all groups are in the tree of rq.cfs.
  if (has('cfs_rq', 'h_curr')) return 'cfs_rq.h_curr: the tasks of all groups are in one queue';
  const needed: readonly (readonly [string, ...string[]])[] = [
    ['cfs_rq', 'nr_queued', 'nr_running'],
    ['cfs_rq', 'tasks_timeline.rb_root.rb_node', 'tasks_timeline.rb_node'],
    ['cfs_rq', 'curr'],
    ['sched_entity', 'run_node.__rb_parent_color'],
    ['sched_entity', 'on_rq'],
    ['sched_entity', 'vruntime'],
  ];
  const [missing] = needed.filter(([struct, ...paths]) => !paths.some((path) => has(struct, path)));
  return missing === undefined ? undefined : `${missing[0]}.${missing[1]} is not there`;
}

type QueueFields = Readonly<
  Record<'active' | 'expired' | 'arrays' | 'rtNrRunning' | 'rtQueue', Place | undefined>
>;

function planO1(
  layout: LayoutView,
  shape: Shape,
  fields: QueueFields,
  links: ListLayout,
): O1Plan | undefined {
  if (fields.active === undefined || fields.expired === undefined || fields.arrays === undefined)
    return undefined;
  const member = (path: string) => requiredField(layout, 'prio_array', path);
  const arraySize = layout.requireStruct('prio_array').size;
  const array = (index: number): ArrayPlan => {
    const within = (found: Place) => ({
      ...found,
      offset: fields.arrays!.offset + index * arraySize + found.offset,
    });
    return {
      nrActive: shape.number(within(member('nr_active'))),
      bitmap: shape.block(within(member('bitmap'))),
      queue: shape.block(within(member('queue'))),
    };
  };
  return {
    active: shape.pointer(fields.active),
    expired: shape.pointer(fields.expired),
    arraysOffset: fields.arrays.offset,
    arrays: [array(0), array(1)],
    queueOffset: member('queue').offset,
    arraySize,
    priorities: elements(member('queue'), links),
  };
}

function planFair(layout: LayoutView): FairPlan | undefined {
  const root = field(layout, 'rq', 'cfs');
  if (root === undefined) return undefined;
  const queue = (...paths: string[]) => anyField(layout, 'cfs_rq', ...paths);
  const entity = (...paths: string[]) => anyField(layout, 'sched_entity', ...paths);
  const queueFields = {
    // "sched/fair: Rename cfs_rq.nr_running into nr_queued", 6.14.
    nrQueued: queue('nr_queued', 'nr_running') ?? requiredField(layout, 'cfs_rq', 'nr_running'),
    // "sched/fair: replace cfs_rq->rb_leftmost", 4.14: a cached tree holds its own leftmost node.
    root:
      queue('tasks_timeline.rb_root.rb_node', 'tasks_timeline.rb_node') ??
      requiredField(layout, 'cfs_rq', 'tasks_timeline.rb_root.rb_node'),
    curr: requiredField(layout, 'cfs_rq', 'curr'),
    rq: queue('rq'),
  };
  const node = requiredField(layout, 'sched_entity', 'run_node');
  const entityFields = {
    parentColor: requiredField(layout, 'sched_entity', 'run_node.__rb_parent_color'),
    right: requiredField(layout, 'sched_entity', 'run_node.rb_right'),
    left: requiredField(layout, 'sched_entity', 'run_node.rb_left'),
    onRq: requiredField(layout, 'sched_entity', 'on_rq'),
    // "sched/fair: Implement an EEVDF-like scheduling policy", 6.6.
    key: entity('deadline') ?? requiredField(layout, 'sched_entity', 'vruntime'),
    // "sched/fair: Implement delayed dequeue", 6.12.
    delayed: entity('sched_delayed'),
    cfsRq: entity('cfs_rq'),
    myQueue: entity('my_q'),
  };
  const shape = new Shape(Object.values(queueFields));
  const entityShape = new Shape(Object.values(entityFields));
  return {
    rootOffset: root.offset,
    shape,
    nrQueued: shape.number(queueFields.nrQueued),
    root: shape.pointer(queueFields.root),
    curr: shape.pointer(queueFields.curr),
    rq: shape.pointer(queueFields.rq),
    entity: {
      shape: entityShape,
      nodeOffset: node.offset,
      parentColor: entityShape.pointer(entityFields.parentColor),
      right: entityShape.pointer(entityFields.right),
      left: entityShape.pointer(entityFields.left),
      onRq: entityShape.number(entityFields.onRq),
      key: entityShape.number(entityFields.key),
      delayed: entityShape.number(entityFields.delayed),
      cfsRq: entityShape.pointer(entityFields.cfsRq),
      myQueue: entityShape.pointer(entityFields.myQueue),
    },
  };
}

function planRealtime(
  layout: LayoutView,
  shape: Shape,
  fields: QueueFields,
  links: ListLayout,
): RealtimePlan | undefined {
  if (fields.rtQueue === undefined || fields.rtNrRunning === undefined) return undefined;
  return {
    nrRunning: shape.number(fields.rtNrRunning),
    queueOffset: fields.rtQueue.offset,
    queue: shape.block(fields.rtQueue),
    priorities: elements(fields.rtQueue, links),
    groups: field(layout, 'sched_rt_entity', 'my_q') !== undefined,
  };
}

/** Elements of an array of list heads. */
function elements(found: Place, links: ListLayout): number {
  if (found.stride === links.size && found.length !== undefined && found.length > 0) return found.length;
  throw new DomschedError(
    'layout-absent-member',
    `a queue of ready tasks is a ${found.type}, not an array of list heads; extract this kernel again`,
    { type: found.type },
  );
}
