import { DomschedError } from '../error.ts';
import type { LayoutView } from '../layout/view.ts';
import { anyField, field, listLayout, type Place, requiredField } from './fields.ts';
import { type BlockSlot, type LinkSlot, type PointerSlot, Shape, type Slot } from './shape.ts';
import { O1_STATE_BITS, STATE_BITS, type StateBits } from './state.ts';

/** How a kernel accounts CPU time. */
export type TimeUnit = 'ns' | 'ticks';

/** What is read of a task, and where it is in a record. Undefined is what the kernel does not have. */
export interface TaskPlan {
  readonly shape: Shape;
  readonly state: Slot;
  readonly exitState: Slot;
  readonly stateBits: StateBits;
  readonly flags: Slot;
  readonly onRq: Slot | undefined;
  /** O(1): the array that a ready task is in. */
  readonly array: PointerSlot | undefined;
  readonly prio: Slot;
  readonly staticPrio: Slot;
  readonly policy: Slot;
  readonly cpu: Slot | undefined;
  /** Pointer to `thread_info`, where the CPU is in there and the stack is apart from the task. */
  readonly threadInfo: PointerSlot | undefined;
  readonly mm: PointerSlot;
  readonly pid: Slot;
  readonly tgid: Slot;
  readonly comm: BlockSlot;
  readonly realParent: PointerSlot;
  readonly signal: PointerSlot;
  /** Nanoseconds, or seconds where there are nanoseconds besides. */
  readonly startTime: Slot;
  /** Of a `struct timespec`. */
  readonly startTimeNs: Slot | undefined;
  readonly utime: Slot;
  readonly stime: Slot;
  readonly runtime: Slot | undefined;
  readonly prevUtime: Slot | undefined;
  readonly prevStime: Slot | undefined;
  readonly timeUnit: TimeUnit;
  readonly runList: LinkSlot | undefined;
  readonly tasks: LinkSlot;
  readonly threads: LinkSlot;
  /** Offsets in the structure of the nodes that lists and trees link; -1 where there is none. */
  readonly tasksOffset: number;
  readonly threadOffset: number;
  readonly runListOffset: number;
  readonly entityOffset: number;
}

/** Resolves what is read of a task. @throws DomschedError `layout-absent-member` */

/**
 * Whether the state's bits have the numbers of "sched/debug: Add explicit TASK_PARKED printing", 4.14. `recent_used_cpu`
 * came next ("sched/fair: Use a recently used CPU as an idle candidate", 4.16, SMP only), then `frozen` ("cgroup: cgroup v2
 * freezer", 5.2), then the state's own new name ("sched: Change task_struct::state", 5.14).
 */
function isRenumbered(layout: LayoutView): boolean {
  return ['__state', 'frozen', 'recent_used_cpu'].some((member) => layout.has('task_struct', member));
}
export function planTask(layout: LayoutView): TaskPlan {
  const optional = (path: string) => field(layout, 'task_struct', path);
  const required = (path: string) => requiredField(layout, 'task_struct', path);
  // "sched: Change task_struct::state", 5.14: renamed, and shrunk from long to unsigned int.
  const modern = optional('__state');
  const state = modern ?? required('state');
  const comm = required('comm');
  const threads = threadNode(layout);
  const fields = {
    state,
    exitState: required('exit_state'),
    flags: required('flags'),
    onRq: optional('on_rq'),
    array: optional('array'),
    prio: required('prio'),
    staticPrio: required('static_prio'),
    policy: required('policy'),
    // "sched: move CPU field back into thread_info if THREAD_INFO_IN_TASK=y", 5.16. From 4.9 on it was in the task.
    cpu: anyField(layout, 'task_struct', 'thread_info.cpu', 'cpu'),
    threadInfo: threadInfoPointer(layout),
    mm: required('mm'),
    pid: required('pid'),
    tgid: required('tgid'),
    comm,
    realParent: required('real_parent'),
    signal: required('signal'),
    // What /proc shows ("time: Rename tsk->real_start_time to ->start_boottime", 5.5): read a moment after `start_time`.
    startTime: optional('start_boottime') ?? required('start_time'),
    utime: required('utime'),
    stime: required('stime'),
    runtime: anyField(layout, 'task_struct', 'se.sum_exec_runtime', 'sched_time'),
    prevUtime: optional('prev_cputime.utime'),
    prevStime: optional('prev_cputime.stime'),
    runList: anyField(layout, 'task_struct', 'run_list', 'rt.run_list'),
    tasks: required('tasks'),
    threads,
  };
  const shape = new Shape(Object.values(fields));
  const links = listLayout(layout);
  // "sched: Make task->start_time nanoseconds based", 3.17: a plain u64 since. Before: `struct timespec`.
  const isTimespec = fields.startTime.kind === 'struct';
  const [startTime, startTimeNs] = isTimespec
    ? shape.words(fields.startTime, 2)
    : [shape.number(fields.startTime)];
  return {
    shape,
    state: shape.number(state),
    exitState: shape.number(fields.exitState),
    stateBits: isRenumbered(layout) ? STATE_BITS : O1_STATE_BITS,
    flags: shape.number(fields.flags),
    onRq: shape.number(fields.onRq),
    array: shape.pointer(fields.array),
    prio: shape.number(fields.prio),
    staticPrio: shape.number(fields.staticPrio),
    policy: shape.number(fields.policy),
    cpu: shape.number(fields.cpu),
    threadInfo: shape.pointer(fields.threadInfo),
    mm: shape.pointer(fields.mm),
    pid: shape.number(fields.pid),
    tgid: shape.number(fields.tgid),
    comm: shape.block(comm),
    realParent: shape.pointer(fields.realParent),
    signal: shape.pointer(fields.signal),
    startTime: startTime!,
    startTimeNs,
    utime: shape.number(fields.utime),
    stime: shape.number(fields.stime),
    runtime: shape.number(fields.runtime),
    prevUtime: shape.number(fields.prevUtime),
    prevStime: shape.number(fields.prevStime),
    timeUnit: timeUnit(layout),
    runList: shape.link(fields.runList, links),
    tasks: shape.link(fields.tasks, links),
    threads: shape.link(threads, links),
    tasksOffset: fields.tasks.offset,
    threadOffset: threads.offset,
    runListOffset: fields.runList?.offset ?? -1,
    entityOffset: optional('se')?.offset ?? -1,
  };
}

/** Whether the CPU of a task is in a `thread_info` beside its stack: until "sched/core: Allow putting
 * thread_info into task_struct", 4.9. */
function threadInfoPointer(layout: LayoutView): Place | undefined {
  if (anyField(layout, 'task_struct', 'thread_info.cpu', 'cpu') !== undefined) return undefined;
  // 2.6.16 has a pointer to it, which later kernels call `stack`.
  return anyField(layout, 'task_struct', 'thread_info', 'stack');
}

/** The member by which the threads of a process are linked. */
function threadNode(layout: LayoutView): Place {
  // "introduce for_each_thread() to replace the buggy while_each_thread()", 3.14: a list with a head in `signal`.
  // Before: `thread_group`, a ring of the threads; until 2.6.16 the ring is the list of the thread group's id.
  const node = anyField(layout, 'task_struct', 'thread_node', 'thread_group');
  if (node !== undefined) return node;
  const ids = field(layout, 'task_struct', 'pids');
  const list = field(layout, 'pid', 'pid_list');
  if (ids?.stride !== undefined && list !== undefined) {
    // enum pid_type of 2.6.16: PIDTYPE_PID, PIDTYPE_TGID, …: the second element.
    const offset = ids.offset + ids.stride + list.offset;
    return { ...list, offset };
  }
  const { release } = layout.kernel;
  throw new DomschedError(
    'layout-absent-member',
    `the layout of ${release} does not say how threads are linked; extract it again with --struct task_struct --struct pid`,
    { release, struct: 'task_struct', member: 'thread_node' },
  );
}

/** Whether `utime` and `stime` are in ns ("sched/cputime: Convert task/group cputime to nsecs", 4.11) or in ticks. */
function timeUnit(layout: LayoutView): TimeUnit {
  // The same change removed the type cputime_t.
  return requiredField(layout, 'task_struct', 'utime').type.includes('cputime_t') ? 'ticks' : 'ns';
}
