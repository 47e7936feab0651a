import { each, list, lock, number, part, pointer } from './declare.ts';

export const task_struct = {
  ...each('number', 'flags', 'exit_state', 'prio', 'static_prio', 'policy', 'pid', 'tgid', 'utime', 'stime'),
  ...each('number', 'ptrace'),
  ...each('pointer', 'mm', 'real_parent', 'group_leader', 'signal', 'sighand', 'sched_class', 'stack'),
  ...each('list', 'tasks', 'sibling'),
  ...each('part', 'se', 'rcu'),
  ...each('block', 'comm'),
  /** "sched: Change task_struct::state", 5.14: renamed, and shrunk from long to unsigned int. */
  state: number('__state', 'state'),
  /** The thread's own work flags, where `thread_info` is in the task. */
  thread_flags: number('thread_info.flags'),
  /** Pointer to a `thread_info` outside the task. "[PATCH] rename thread_info to stack", 2.6.22, only renamed it. */
  thread_info: pointer('thread_info', 'stack'),
  /** In the task from 4.9 to "sched: move CPU field back into thread_info if THREAD_INFO_IN_TASK=y", 5.16. */
  cpu: number('thread_info.cpu', 'cpu'),
  /** "sched: Always provide p->on_cpu" and "sched: Provide p->on_rq", 3.0. */
  ...each('number', 'on_cpu', 'on_rq'),
  /** O(1) until "sched: Implement CFS", 2.6.23: the array that a ready task is in. */
  array: pointer('array'),
  /** Node in a queue of ready tasks. Since 2.6.23 only real-time queues are lists. */
  run_list: list('run_list', 'rt.run_list'),
  /** O(1) only: the task's share of `rq.raw_weighted_load`. "[PATCH] sched: implement smpnice", 2.6.18. */
  load_weight: number('load_weight'),
  /** `prio` without a boost by a lock. "[PATCH] pi-futex: scheduler support for pi", 2.6.18. */
  normal_prio: number('normal_prio'),
  /**
   * Links the threads of a process. Since "introduce for_each_thread() to replace the buggy while_each_thread()", 3.14,
   * they are a list with a head in `signal`; before it, the ring `thread_group`; until 2.6.16, the list of the thread
   * group's id, `pids[PIDTYPE_TGID]`.
   */
  thread_node: list('thread_node', 'thread_group', 'pids[1].pid_list'),
  /**
   * The start time that /proc shows. "time: Rename tsk->real_start_time to ->start_boottime", 5.5, read a moment after
   * `start_time`. A `struct timespec` until "sched: Make task->start_time nanoseconds based", 3.17.
   */
  start_time: number('start_boottime', 'start_time'),
  /** Time on CPUs, ns. "sched: Implement CFS", 2.6.23. */
  sum_exec_runtime: number('se.sum_exec_runtime', 'sched_time'),
  /**
   * Time in a run queue, and when the present stay in one began: 0 when it is in none. They are ns of `rq.clock` since
   * "sched: Implement CFS", 2.6.23, and jiffies before it. A kernel without CONFIG_SCHED_INFO has neither.
   */
  run_delay: number('sched_info.run_delay'),
  last_queued: number('sched_info.last_queued'),
  /** The times that /proc showed last, kept so that they never go back. */
  prev_utime: number('prev_cputime.utime'),
  prev_stime: number('prev_cputime.stime'),
  pi_lock: lock('pi_lock'),
  /** Stack pointer of a task that is not running. */
  sp: number('thread.sp'),
  /** "sched/core: Provide a pointer to the valid CPU mask", 5.3. */
  cpus_ptr: pointer('cpus_ptr'),
  numa_preferred_nid: number('numa_preferred_nid'),
  /** CONFIG_SCHED_CACHE, seen in 7.2: less than 0 in a task that no queue counts by its cache. */
  preferred_llc: number('preferred_llc'),
  /** "task_work_add: generic process-context callbacks", 3.5. */
  task_works: pointer('task_works'),
  jobctl: number('jobctl'),
  /** References to the structure (`refcount_t`); dropping the last one frees it. */
  usage: number('usage'),
  /** A bit that is set in the freezer trap. "cgroup: cgroup v2 freezer", 5.2. */
  frozen: number('frozen'),
  cgroups: pointer('cgroups'),
  /** CONFIG_IO_URING; "io_uring: don't rely on weak ->files references", 5.10. */
  io_uring: pointer('io_uring'),
  /** "sched: Fix race in task_group()", 3.6. */
  sched_task_group: pointer('sched_task_group'),
  /** Until "CRED: Inaugurate COW credentials", 2.6.29, the ids are in the task itself. */
  uid: number('uid'),
  cred: pointer('real_cred', 'cred'),
};

export const signal_struct = {
  /** CPU time of threads that have ended. */
  ...each('number', 'utime', 'stime'),
  /** "introduce for_each_thread() to replace the buggy while_each_thread()", 3.14. */
  thread_head: list('thread_head'),
  /** In ns. "timers: fix itimer/many thread hang", 2.6.28, renamed it from sched_time. */
  sum_sched_runtime: number('sum_sched_runtime', 'sched_time'),
  prev_utime: number('prev_cputime.utime'),
  prev_stime: number('prev_cputime.stime'),
};

/** It is outside its task until "sched/core: Allow putting thread_info into task_struct", 4.9. */
export const thread_info = {
  ...each('number', 'flags', 'cpu'),
  ...each('pointer', 'task'),
};

export const sighand_struct = { siglock: lock('siglock') };

export const cred = { uid: number('uid.val', 'uid') };

export const mm_struct = { ...each('number', 'arg_start', 'arg_end'), ...each('pointer', 'pgd') };

export const css_set = each('pointer', 'dfl_cgrp');

export const cgroup = {
  ...each('pointer', 'kn'),
  /** Whether the guest freezes its tasks. "cgroup: cgroup v2 freezer", 5.2. */
  e_freeze: number('freezer.e_freeze'),
};

/** "cgroup: convert to kernfs", 3.15. */
export const kernfs_node = {
  /** "kernfs: Use RCU to access kernfs_node::parent", 6.15. */
  parent: pointer('parent', '__parent'),
  ...each('pointer', 'name'),
};

export const callback_head = each('pointer', 'next', 'func');

export const irq_work = {
  next: pointer('node.llist.next'),
  flags: number('node.u_flags'),
  func: pointer('func'),
  /** "irq_work: Cleanup" and "irq_work: Make irq_work_queue() NMI-safe again", 5.11 and 5.16, for PREEMPT_RT. */
  irqwait: pointer('irqwait.task'),
};

/**
 * It is behind the task since "x86/fpu: Remove the thread::fpu pointer", 6.16. `fpstate` ("x86/fpu: Provide struct
 * fpstate", 5.16) points to the task's own registers or to larger ones.
 */
export const fpu = { fpstate: pointer('fpstate'), own: part('__fpstate') };

/**
 * Only the padding of `tss_struct` matters, and the size of `timer_list`, behind which is what `process_timeout()`
 * wakes.
 */
export const tss_struct = {};
export const timer_list = {};

/** It ends a stack. "x86/ptrace: Cleanup the definition of the pt_regs structure", 6.9, made `cs` two bytes wide. */
export const pt_regs = each('number', 'cs');
