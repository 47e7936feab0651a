import { DomschedError } from '../error.ts';
import type { LayoutView } from '../layout/view.ts';
import { anyField, field, type Place, requiredField } from './fields.ts';
import { type LockPlan, planLock } from './locks.ts';
import { Shape } from './shape.ts';
import { bitMask } from './task-plan.ts';

/** Positions are in records of the shape of the same plan; -1 where the kernel has no such member. */

/** `struct rq`: one per CPU. */
export interface QueuePlan {
  readonly shape: Shape;
  readonly lock: LockPlan;
  readonly lockAt: number;
  readonly nrRunning: number;
  readonly nrSwitches: number;
  readonly curr: number;
  readonly idle: number;
  readonly stop: number;
  readonly cpu: number;
  readonly o1: O1Plan | undefined;
  readonly fair: FairPlan | undefined;
  readonly realtime: RealtimePlan | undefined;
  readonly deadline: DeadlinePlan | undefined;
  /** The words that change with every edit of the queue: read again after a snapshot of a running guest. */
  readonly key: KeyPlan;
}

export interface KeyPlan {
  readonly shape: Shape;
  readonly nrRunning: number;
  readonly nrSwitches: number;
  readonly curr: number;
}

/** O(1) arrays (2.6.0 to 2.6.22). */
export interface O1Plan {
  readonly active: number;
  readonly expired: number;
  /** Offset of `arrays` in the structure, and where its copy is. */
  readonly arraysOffset: number;
  readonly arrays: number;
  readonly arraySize: number;
  /** In an array. */
  readonly nrActive: number;
  readonly bitmap: number;
  readonly queue: number;
  readonly priorities: number;
}

/** `struct cfs_rq` and `struct sched_entity` (since 2.6.23). */
export interface FairPlan {
  /** Of `rq.cfs` in `rq`. */
  readonly rootOffset: number;
  readonly shape: Shape;
  /** Entities at this level, `curr` and groups included. */
  readonly nrQueued: number;
  readonly nrQueuedSize: number;
  readonly root: number;
  readonly curr: number;
  /** Back pointer to `rq`, with group scheduling. */
  readonly rq: number;
  readonly entity: EntityPlan;
}

export interface EntityPlan {
  readonly shape: Shape;
  readonly nodeOffset: number;
  readonly parentColor: number;
  readonly right: number;
  readonly left: number;
  readonly onRq: number;
  readonly vruntime: number;
  /** EEVDF only. */
  readonly deadline: number;
  readonly delayed: number;
  readonly delayedMask: number;
  /** With group scheduling: the queue that it is in, and the one it stands for. */
  readonly cfsRq: number;
  readonly myQueue: number;
}

/** `struct rt_rq` (since 2.6.23). */
export interface RealtimePlan {
  readonly nrRunning: number;
  readonly queueOffset: number;
  readonly queue: number;
  readonly priorities: number;
  /**
   * With CONFIG_RT_GROUP_SCHED what is queued may be groups of tasks: then real-time tasks are counted, not listed.
   */
  readonly groups: boolean;
}

/** `struct dl_rq` (since 3.14): tasks with deadlines are counted, not listed. */
export interface DeadlinePlan {
  readonly nrRunning: number;
  readonly nrRunningSize: number;
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
    cpu: optional('cpu'),
    active: optional('active'),
    expired: optional('expired'),
    arrays: optional('arrays'),
    rtNrRunning: optional('rt.rt_nr_running'),
    rtQueue: optional('rt.active.queue'),
    dlNrRunning: optional('dl.dl_nr_running'),
  };
  const shape = new Shape(Object.values(fields));
  const at = (found: Place | undefined) => shape.at(found);
  const keyShape = new Shape([fields.nrRunning, fields.nrSwitches, fields.curr]);
  return {
    shape,
    lock: lockPlan,
    lockAt: at(fields.lock),
    nrRunning: at(fields.nrRunning),
    nrSwitches: at(fields.nrSwitches),
    curr: at(fields.curr),
    idle: at(fields.idle),
    stop: at(fields.stop),
    cpu: at(fields.cpu),
    o1: planO1(layout, shape, fields),
    fair: planFair(layout),
    realtime: planRealtime(layout, shape, fields),
    deadline:
      fields.dlNrRunning === undefined
        ? undefined
        : { nrRunning: at(fields.dlNrRunning), nrRunningSize: fields.dlNrRunning.size },
    key: {
      shape: keyShape,
      nrRunning: keyShape.at(fields.nrRunning),
      nrSwitches: keyShape.at(fields.nrSwitches),
      curr: keyShape.at(fields.curr),
    },
  };
}

type QueueFields = Readonly<
  Record<'active' | 'expired' | 'arrays' | 'rtNrRunning' | 'rtQueue', Place | undefined>
>;

function planO1(layout: LayoutView, shape: Shape, fields: QueueFields): O1Plan | undefined {
  if (fields.active === undefined || fields.expired === undefined || fields.arrays === undefined)
    return undefined;
  const queue = requiredField(layout, 'prio_array', 'queue');
  return {
    active: shape.at(fields.active),
    expired: shape.at(fields.expired),
    arraysOffset: fields.arrays.offset,
    arrays: shape.at(fields.arrays),
    arraySize: layout.requireStruct('prio_array').size,
    nrActive: requiredField(layout, 'prio_array', 'nr_active').offset,
    bitmap: requiredField(layout, 'prio_array', 'bitmap').offset,
    queue: queue.offset,
    priorities: elements(queue),
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
    vruntime: requiredField(layout, 'sched_entity', 'vruntime'),
    // "sched/fair: Implement an EEVDF-like scheduling policy", 6.6.
    deadline: entity('deadline'),
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
    nrQueued: shape.at(queueFields.nrQueued),
    nrQueuedSize: queueFields.nrQueued.size,
    root: shape.at(queueFields.root),
    curr: shape.at(queueFields.curr),
    rq: shape.at(queueFields.rq),
    entity: {
      shape: entityShape,
      nodeOffset: node.offset,
      parentColor: entityShape.at(entityFields.parentColor),
      right: entityShape.at(entityFields.right),
      left: entityShape.at(entityFields.left),
      onRq: entityShape.at(entityFields.onRq),
      vruntime: entityShape.at(entityFields.vruntime),
      deadline: entityShape.at(entityFields.deadline),
      delayed: entityShape.at(entityFields.delayed),
      delayedMask: bitMask(entityFields.delayed),
      cfsRq: entityShape.at(entityFields.cfsRq),
      myQueue: entityShape.at(entityFields.myQueue),
    },
  };
}

function planRealtime(layout: LayoutView, shape: Shape, fields: QueueFields): RealtimePlan | undefined {
  if (fields.rtQueue === undefined || fields.rtNrRunning === undefined) return undefined;
  return {
    nrRunning: shape.at(fields.rtNrRunning),
    queueOffset: fields.rtQueue.offset,
    queue: shape.at(fields.rtQueue),
    priorities: elements(fields.rtQueue),
    groups: field(layout, 'sched_rt_entity', 'my_q') !== undefined,
  };
}

/** Elements of an array of list heads. */
function elements(found: Place): number {
  if (found.stride === 16 && found.length !== undefined && found.length > 0) return found.length;
  throw new DomschedError(
    'layout-absent-member',
    `a queue of ready tasks is a ${found.type}, not an array of list heads; extract this kernel again`,
    { type: found.type },
  );
}
