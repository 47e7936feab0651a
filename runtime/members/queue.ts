import { block, each, lock, number, part, pointer } from './declare.ts';

/** One CPU's run queue; it was named `runqueue` until 2.6.17. */
export const rq = {
  ...each('number', 'nr_running', 'nr_switches', 'clock', 'cpu'),
  /**
   * "sched: Split scheduler and execution contexts", 6.14: `donor` shares its place with `curr`, except with proxy
   * execution, where `curr` runs on the account of another thread.
   */
  ...each('pointer', 'curr', 'idle', 'donor'),
  /** "sched: Wrap rq::lock access", 5.14: the lock may be another CPU's. */
  lock: lock('__lock', 'lock'),
  /** O(1) until "sched: Implement CFS", 2.6.23. */
  ...each('pointer', 'active', 'expired'),
  arrays: part('arrays'),
  /** O(1) only: time of the last tick. */
  timestamp_last_tick: number('timestamp_last_tick'),
  /** O(1) only: sum of the linked tasks' weights. "[PATCH] sched: implement smpnice", 2.6.18. */
  raw_weighted_load: number('raw_weighted_load'),
  /** "sched: Implement CFS", 2.6.23. */
  cfs: part('cfs'),
  rt_nr_running: number('rt.rt_nr_running'),
  rt_queue: block('rt.active.queue'),
  /** Tasks with deadlines: "sched/deadline: Add SCHED_DEADLINE structures & implementation", 3.14. */
  dl_nr_running: number('dl.dl_nr_running'),
  /** Tasks of a loaded BPF scheduler: "sched_ext: Implement BPF extensible scheduler class", 6.12. */
  scx_nr_running: number('scx.nr_running'),
  /** "sched: Create special class for stop/migrate work", 2.6.37. */
  stop: pointer('stop'),
  ...each('list', 'cfs_tasks', 'leaf_cfs_rq_list'),
  /** "sched/fair: Fix insertion in rq->leaf_cfs_rq_list", 4.10. */
  tmp_alone_branch: pointer('tmp_alone_branch'),
  /** Core scheduling: "sched: Core-wide rq->lock", 5.14. */
  core_enabled: number('core_enabled'),
  /** CONFIG_UCLAMP_TASK: its buckets also count the queued tasks, once `sched_uclamp_used` is on. */
  uclamp: part('uclamp'),
  /** "sched/fair: Add trivial fair server", 6.12. */
  fair_server: part('fair_server'),
};

/** O(1) until "sched: Implement CFS", 2.6.23. */
export const prio_array = {
  nr_active: number('nr_active'),
  bitmap: block('bitmap'),
  /** Words of the bitmap, which has a bit per priority and a sentinel above the last. */
  bitmap_word: number('bitmap[0]'),
  queue: block('queue'),
};

/** "sched: Implement CFS", 2.6.23. */
export const cfs_rq = {
  ...each('pointer', 'curr', 'rq'),
  /** Buddies, of which later kernels have fewer. */
  ...each('pointer', 'next', 'last', 'skip'),
  ...each('number', 'on_list', 'throttle_count'),
  ...each('list', 'leaf_cfs_rq_list'),
  ...each('part', 'avg'),
  weight: number('load.weight'),
  inv_weight: number('load.inv_weight'),
  /** Entities at this level, `curr` and groups included. "sched/fair: Rename cfs_rq.nr_running into nr_queued", 6.14. */
  nr_queued: number('nr_queued', 'nr_running'),
  /** "sched/fair: Rename h_nr_running into h_nr_queued", 6.14. */
  h_nr_queued: number('h_nr_queued', 'h_nr_running'),
  /** Entities that are queued and not asleep. "sched/fair: Add new cfs_rq.h_nr_runnable", 6.14. */
  h_nr_runnable: number('h_nr_runnable'),
  idle_nr: number('idle_nr_running'),
  /** "sched/fair: Rename cfs_rq.idle_h_nr_running into h_nr_idle", 6.14. */
  h_nr_idle: number('h_nr_idle', 'idle_h_nr_running'),
  /** Set if the group as a whole is SCHED_IDLE: "sched: Cgroup SCHED_IDLE support", 5.15. */
  idle: number('idle'),
  /** "sched/fair: replace cfs_rq->rb_leftmost", 4.14: a cached tree holds its own leftmost node. */
  root: pointer('tasks_timeline.rb_root.rb_node', 'tasks_timeline.rb_node'),
  leftmost: pointer('tasks_timeline.rb_leftmost'),
  min_vruntime: number('min_vruntime'),
  /** "sched/fair: Implement an EEVDF-like scheduling policy", 6.6. */
  /** "sched/fair: Rename cfs_rq::avg_load to cfs_rq::sum_weight" and its like, 6.19. */
  avg_vruntime: number('avg_vruntime', 'sum_w_vruntime'),
  avg_load: number('avg_load', 'sum_weight'),
  /** The sums use whole weights shifted right by this: "sched/fair: Increase weight bits for avg_vruntime", 7.1. */
  sum_shift: number('sum_shift'),
  /** "sched/eevdf: Fix min_vruntime vs avg_vruntime" gave the sums a zero of their own, which every reading moves. */
  zero_vruntime: number('zero_vruntime'),
  /** "sched/eevdf: Move to a single runqueue", 7.3: the tree of rq.cfs holds the tasks of all groups. */
  h_curr: pointer('h_curr'),
};

/** "sched: Implement CFS", 2.6.23. */
export const sched_entity = {
  weight: number('load.weight'),
  inv_weight: number('load.inv_weight'),
  /** Share of the whole CPU, groups counted: "sched/eevdf: Move to a single runqueue", 7.3. */
  h_weight: number('h_load.weight'),
  h_inv_weight: number('h_load.inv_weight'),
  ...each('number', 'on_rq', 'vruntime', 'runnable_weight'),
  /** Group scheduling: the queue that an entity is in, the queue that it stands for, and the entity around it. */
  ...each('pointer', 'cfs_rq', 'my_q', 'parent'),
  ...each('list', 'group_node'),
  ...each('part', 'run_node', 'avg'),
  /** "sched/fair: Implement an EEVDF-like scheduling policy", 6.6. */
  ...each('number', 'deadline', 'min_vruntime', 'slice'),
  /** The order of the tree: virtual run time, with EEVDF the deadline. */
  key: number('deadline', 'vruntime'),
  /** "sched/fair: Add lag based placement", 6.6. */
  vlag: number('vlag'),
  /** "sched/eevdf: Propagate min_slice up the cgroup hierarchy", 6.12. */
  min_slice: number('min_slice'),
  /** "sched/fair: Fix lag clamp", 6.19. */
  max_slice: number('max_slice'),
  /** "sched/fair: Avoid re-setting virtual deadline on 'migrations'", 6.12. */
  rel_deadline: number('rel_deadline'),
  /** "sched/fair: Implement delayed dequeue", 6.12: a sleeper may stay in the tree for a while. */
  sched_delayed: number('sched_delayed'),
};

/** CONFIG_RT_GROUP_SCHED: a queued entity may be a group. */
export const sched_rt_entity = each('pointer', 'my_q');

/** Told a fair server whether there was anything to do. "sched/deadline: Fix dl_server behaviour", 6.18, removed it. */
export const sched_dl_entity = each('pointer', 'server_has_tasks');

export const sched_avg = each(
  'number',
  ...(['last_update_time', 'load_sum', 'runnable_sum', 'util_sum', 'period_contrib'] as const),
  ...(['load_avg', 'runnable_avg', 'util_avg'] as const),
);

/** CONFIG_FAIR_GROUP_SCHED. */
export const task_group = {
  shares: number('shares'),
  ...each('pointer', 'parent', 'autogroup'),
  /** "sched: Cgroup SCHED_IDLE support", 5.15. */
  idle: number('idle'),
};

/** Switch of code that is patched in; zero means out. "jump label: introduce static_branch() interface", 3.0. */
export const static_key = each('number', 'enabled');

/** What `/proc/PID/autogroup` shows. */
export const autogroup = each('number', 'nice');

export const list_head = each('pointer', 'next', 'prev');
export const rb_node = each('pointer', '__rb_parent_color', 'rb_left', 'rb_right');

/** One CPU's own data, until 2.6.29. */
export const x8664_pda = { ...each('number', 'cpunumber', 'data_offset'), ...each('pointer', 'pcurrent') };

/** "x86/percpu: Move preempt_count next to current_task", 6.2, until 6.15. */
export const pcpu_hot = each('number', 'preempt_count');
