import { DomschedError } from '../error.ts';
import type { LayoutView } from '../layout/view.ts';
import { anyField, field, type Place, requiredField } from './fields.ts';
import { Shape } from './shape.ts';
import { O1_STATE_BITS, STATE_BITS, type StateBits } from './state.ts';

/** How a kernel accounts CPU time. */
export type TimeUnit = 'ns' | 'ticks';

/** What is read of a task, and where it is in a record. Positions are -1 where the kernel has no such member. */
export interface TaskPlan {
  readonly shape: Shape;
  readonly state: number;
  readonly exitState: number;
  readonly stateBits: StateBits;
  readonly flags: number;
  readonly onRq: number;
  /** O(1): the array that a ready task is in. */
  readonly array: number;
  readonly prio: number;
  readonly staticPrio: number;
  readonly policy: number;
  readonly cpu: number;
  /** Pointer to `thread_info`, where the CPU is in there and the stack is apart from the task. */
  readonly threadInfo: number;
  readonly mm: number;
  readonly pid: number;
  readonly tgid: number;
  readonly comm: number;
  readonly commSize: number;
  readonly realParent: number;
  readonly signal: number;
  readonly startTime: number;
  /** `struct timespec` (seconds, then nanoseconds) instead of nanoseconds. */
  readonly startTimeIsTimespec: boolean;
  readonly utime: number;
  readonly stime: number;
  readonly runtime: number;
  readonly prevUtime: number;
  readonly prevStime: number;
  readonly timeUnit: TimeUnit;
  readonly runListNext: number;
  readonly runListPrev: number;
  readonly tasksNext: number;
  readonly tasksPrev: number;
  readonly threadNext: number;
  readonly threadPrev: number;
  /** Offsets in the structure of the nodes that lists and trees link. */
  readonly tasksOffset: number;
  readonly threadOffset: number;
  readonly runListOffset: number;
  readonly entityOffset: number;
}

/** Resolves what is read of a task. @throws DomschedError `layout-absent-member` */
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
  const at = (found: Place | undefined) => shape.at(found);
  const next = (found: Place | undefined) => (found === undefined ? -1 : at(found));
  const previous = (found: Place | undefined) => (found === undefined ? -1 : at(found) + 8);
  const offset = (path: string) => optional(path)?.offset ?? -1;
  return {
    shape,
    state: at(state),
    exitState: at(fields.exitState),
    stateBits: modern === undefined ? O1_STATE_BITS : STATE_BITS,
    flags: at(fields.flags),
    onRq: at(fields.onRq),
    array: at(fields.array),
    prio: at(fields.prio),
    staticPrio: at(fields.staticPrio),
    policy: at(fields.policy),
    cpu: at(fields.cpu),
    threadInfo: at(fields.threadInfo),
    mm: at(fields.mm),
    pid: at(fields.pid),
    tgid: at(fields.tgid),
    comm: at(comm),
    commSize: comm.size,
    realParent: at(fields.realParent),
    signal: at(fields.signal),
    startTime: at(fields.startTime),
    // "sched: Make task->start_time nanoseconds based", 3.17: a plain u64 since.
    startTimeIsTimespec: fields.startTime.size === 16,
    utime: at(fields.utime),
    stime: at(fields.stime),
    runtime: at(fields.runtime),
    prevUtime: at(fields.prevUtime),
    prevStime: at(fields.prevStime),
    timeUnit: timeUnit(layout),
    runListNext: next(fields.runList),
    runListPrev: previous(fields.runList),
    tasksNext: next(fields.tasks),
    tasksPrev: previous(fields.tasks),
    threadNext: next(threads),
    threadPrev: previous(threads),
    tasksOffset: fields.tasks.offset,
    threadOffset: threads.offset,
    runListOffset: fields.runList?.offset ?? -1,
    entityOffset: offset('se'),
  };
}

/** Mask of a bit field within the first byte of its word; all bits for what is none. */
export function bitMask(found: Place | undefined): number {
  return found?.bits === undefined ? 0xff : Number(BigInt(found.bits.mask) & 0xffn);
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
