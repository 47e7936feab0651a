import { hasMember, listLinks, type Member, membersOf, requiredField } from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import { Shape } from './shape.ts';
import { O1_STATE_BITS, STATE_BITS } from './state.ts';

/** How a kernel accounts CPU time. */
export type TimeUnit = 'ns' | 'ticks';

/** Members of a task that are read, and where each is in a record. */
export type TaskSlots = ReturnType<typeof taskSlots>;

/** Resolves the members of a task that are read. @throws DomschedError `layout-absent-member` */
export function taskSlots(layout: LayoutView) {
  const found = membersOf(layout, 'task_struct', [
    ...(['state', 'exit_state', 'flags', 'on_rq?', 'array?', 'prio', 'static_prio', 'policy'] as const),
    ...(['cpu?', 'mm', 'pid', 'tgid', 'comm', 'real_parent', 'signal', 'start_time'] as const),
    ...(['utime', 'stime', 'sum_exec_runtime?', 'prev_utime?', 'prev_stime?'] as const),
    ...(['run_delay?', 'last_queued?', 'run_list?', 'tasks', 'thread_node', 'se?', 'jobctl?'] as const),
  ]);
  // Until "sched/core: Allow putting thread_info into task_struct", 4.9, the CPU is in a thread_info beside the stack.
  // A kernel for one CPU has it nowhere.
  const isInTask = found.cpu !== undefined || hasMember(layout, 'task_struct', 'thread_flags');
  const apart = isInTask ? {} : membersOf(layout, 'task_struct', ['thread_info?']);
  const members = { thread_info: undefined, ...found, ...apart, ...startTime(found.start_time) };
  const shape = new Shape(Object.values(members));
  return {
    ...shape.slots(members, listLinks(layout)),
    shape,
    stateBits: isRenumbered(layout) ? STATE_BITS : O1_STATE_BITS,
    timeUnit: timeUnit(layout),
    // "sched: Implement CFS", 2.6.23, made it ns, and twice as long where a long has 32 bits.
    delayUnit: (members.run_delay?.type === 'unsigned long' ? 'ticks' : 'ns') satisfies TimeUnit as TimeUnit,
  };
}

/**
 * Whether the state's bits have the numbers of "sched/debug: Add explicit TASK_PARKED printing", 4.14. Later members
 * show it: `recent_used_cpu` ("sched/fair: Use a recently used CPU as an idle candidate", 4.16, SMP only), `frozen`
 * ("cgroup: cgroup v2 freezer", 5.2), and the state's new name ("sched: Change task_struct::state", 5.14).
 */
function isRenumbered(layout: LayoutView): boolean {
  return ['__state', 'frozen', 'recent_used_cpu'].some((member) => layout.has('task_struct', member));
}

/** Start time in ns, or for a `struct timespec` its seconds and its nanoseconds. */
function startTime(start_time: Member<'number'>) {
  const size = start_time.size / 2;
  if (start_time.size <= 8) return { start_time, start_time_ns: undefined };
  const start_time_ns = { ...start_time, size, offset: start_time.offset + size };
  return { start_time: { ...start_time, size }, start_time_ns };
}

/** Members of a `signal_struct` that are read. The threads of a process share it. */
export type SignalSlots = ReturnType<typeof signalSlots>;

/** @throws DomschedError `layout-absent-member` */
export function signalSlots(layout: LayoutView) {
  const found = membersOf(layout, 'signal_struct', [
    ...(['thread_head?', 'utime', 'stime', 'sum_sched_runtime?', 'prev_utime?', 'prev_stime?'] as const),
  ]);
  const shape = new Shape(Object.values(found));
  return { ...shape.slots(found, listLinks(layout)), shape };
}

/** Members of a `thread_info` outside its task that are read. */
export type ThreadInfoSlots = ReturnType<typeof threadInfoSlots>;

export function threadInfoSlots(layout: LayoutView) {
  const found = membersOf(layout, 'thread_info', ['task?', 'cpu?']);
  const shape = new Shape(Object.values(found));
  return { ...shape.slots(found, listLinks(layout)), shape };
}

/** Whether `utime` and `stime` are in ns ("sched/cputime: Convert task/group cputime to nsecs", 4.11) or in ticks. */
function timeUnit(layout: LayoutView): TimeUnit {
  // The same change removed the type cputime_t.
  return requiredField(layout, 'task_struct', 'utime').type.includes('cputime_t') ? 'ticks' : 'ns';
}
