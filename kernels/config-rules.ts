import type { ConfigCondition } from './config.ts';

interface RuleBase {
  /**
   * Members (`structure.member`, canonical names) of the layouts to which the rule applies, because the same option
   * affects different members in different kernels. This probes the layout and never compares versions.
   */
  where: readonly string[];
  /** Source of the rule: a file of the kernel, and a release that has it. */
  source: { file: string; release: string };
}

/** The member is present exactly if the condition holds. */
export interface PresenceRule extends RuleBase {
  effect: 'present';
  members: readonly string[];
  when: ConfigCondition;
}

/** Size in bytes from the first case whose condition holds; no statement if none does. */
export interface SizeRule extends RuleBase {
  effect: 'size';
  members: readonly string[];
  cases: readonly (readonly [when: ConfigCondition, bytes: number])[];
}

/** Bitmaps with as many bits as the option's value (with `exponent`: 2 to that power), in whole longs. */
export interface BitmapRule extends RuleBase {
  effect: 'bitmap';
  members: readonly string[];
  option: string;
  exponent?: true;
}

/**
 * Cache-line alignment if the condition holds: offsets of members or sizes of structures are multiples of 2 to the
 * power of the option.
 */
export interface AlignmentRule extends RuleBase {
  effect: 'aligned';
  members: readonly string[];
  when: ConfigCondition;
  option: string;
}

/** A statement about a kernel's structures that follows from its configuration. */
export type ConfigRule = PresenceRule | SizeRule | BitmapRule | AlignmentRule;

/** The O(1) scheduler: two priority arrays in the queue, until "sched: remove the 'old' scheduler", 2.6.23. */
const o1 = ['rq.arrays', 'task_struct.array'];
/** CFS and after, from "sched: Change task_struct::state" and "sched: Core-wide rq->lock", both 5.14. */
const modern = ['task_struct.__state', 'rq.__lock'];

const schedC = { file: 'kernel/sched.c', release: '2.6.16' };
const oldSchedH = { file: 'include/linux/sched.h', release: '2.6.16' };
const schedInternal = { file: 'kernel/sched/sched.h', release: '6.1' };
const schedH = { file: 'include/linux/sched.h', release: '6.1' };
const signalH = { file: 'include/linux/sched/signal.h', release: '6.1' };
const mmTypes = { file: 'include/linux/mm_types.h', release: '6.1' };

/** One line per `#ifdef`. */
function present(
  where: readonly string[],
  source: RuleBase['source'],
  rules: Readonly<Record<ConfigCondition, string>>,
): PresenceRule[] {
  return Object.entries(rules).map(([when, members]) => ({
    effect: 'present',
    where,
    source,
    when,
    members: members.split(' '),
  }));
}

export const configRules: readonly ConfigRule[] = [
  ...present(o1, schedC, {
    CONFIG_SMP: 'rq.cpu_load rq.sd rq.active_balance rq.push_cpu rq.migration_thread rq.migration_queue',
    CONFIG_SCHEDSTATS:
      'rq.rq_sched_info rq.yld_exp_empty rq.yld_act_empty rq.yld_both_empty rq.sched_goidle rq.ttwu_local',
  }),
  ...present(o1, oldSchedH, {
    CONFIG_SCHEDSTATS: 'task_struct.sched_info',
    CONFIG_KEYS: 'task_struct.thread_keyring',
    CONFIG_NUMA: 'task_struct.mempolicy task_struct.il_next',
    CONFIG_CPUSETS: 'task_struct.cpuset task_struct.mems_allowed',
    CONFIG_SYSVIPC: 'task_struct.sysvsem',
    CONFIG_DEBUG_MUTEXES: 'task_struct.blocked_on',
  }),
  {
    // A single processor needs no word to spin on; `break_lock` is for kernels that are both preemptible and SMP.
    effect: 'size',
    where: o1,
    source: { file: 'include/linux/spinlock_types.h', release: '2.6.16' },
    members: ['rq.lock', 'task_struct.alloc_lock', 'task_struct.proc_lock', 'sighand_struct.siglock'],
    cases: [
      ['!CONFIG_DEBUG_SPINLOCK && CONFIG_SMP && CONFIG_PREEMPT', 8],
      ['!CONFIG_DEBUG_SPINLOCK && CONFIG_SMP', 4],
      ['!CONFIG_DEBUG_SPINLOCK', 0],
    ],
  },
  {
    effect: 'bitmap',
    where: o1,
    source: { file: 'include/linux/cpumask.h', release: '2.6.16' },
    members: ['task_struct.cpus_allowed', 'mm_struct.cpu_vm_mask'],
    option: 'CONFIG_NR_CPUS',
  },
  {
    effect: 'aligned',
    where: o1,
    source: { file: 'include/asm-x86_64/pda.h', release: '2.6.16' },
    members: ['x8664_pda'],
    when: 'CONFIG_SMP',
    option: 'CONFIG_X86_L1_CACHE_SHIFT',
  },

  ...present(modern, schedInternal, {
    CONFIG_SMP:
      'rq.ttwu_pending rq.rd rq.sd rq.cpu_capacity rq.balance_callback rq.active_balance rq.push_cpu rq.cpu ' +
      'rq.online rq.cfs_tasks rq.avg_rt rq.avg_dl rq.nr_pinned cfs_rq.avg cfs_rq.removed rt_rq.overloaded ' +
      'rt_rq.pushable_tasks rt_rq.highest_prio.next',
    CONFIG_NUMA_BALANCING: 'rq.nr_numa_running rq.nr_preferred_running rq.numa_migrate_on',
    CONFIG_NO_HZ_COMMON: 'rq.nohz_tick_stopped rq.nohz_flags',
    'CONFIG_NO_HZ_COMMON && CONFIG_SMP': 'rq.last_blocked_load_update_tick rq.has_blocked_load rq.nohz_csd',
    CONFIG_UCLAMP_TASK: 'rq.uclamp rq.uclamp_flags',
    CONFIG_FAIR_GROUP_SCHED:
      'rq.leaf_cfs_rq_list rq.tmp_alone_branch cfs_rq.rq cfs_rq.on_list cfs_rq.leaf_cfs_rq_list cfs_rq.tg ' +
      'cfs_rq.idle task_group.se task_group.cfs_rq task_group.shares',
    'CONFIG_FAIR_GROUP_SCHED && CONFIG_SMP':
      'cfs_rq.tg_load_avg_contrib cfs_rq.propagate cfs_rq.h_load cfs_rq.h_load_next task_group.load_avg',
    'CONFIG_FAIR_GROUP_SCHED && CONFIG_CFS_BANDWIDTH':
      'cfs_rq.runtime_enabled cfs_rq.runtime_remaining cfs_rq.throttled cfs_rq.throttle_count ' +
      'cfs_rq.throttled_list',
    CONFIG_RT_GROUP_SCHED:
      'rt_rq.rt_nr_boosted rt_rq.rq rt_rq.tg task_group.rt_se task_group.rt_rq task_group.rt_bandwidth',
    CONFIG_SCHED_AUTOGROUP: 'task_group.autogroup',
    CONFIG_UCLAMP_TASK_GROUP: 'task_group.uclamp',
    CONFIG_SCHED_DEBUG: 'rq.last_seen_need_resched_ns rq.ticks_without_resched',
    CONFIG_MEMBARRIER: 'rq.membarrier_state',
    'CONFIG_HOTPLUG_CPU && CONFIG_SMP': 'rq.hotplug_wait',
    CONFIG_IRQ_TIME_ACCOUNTING: 'rq.prev_irq_time',
    CONFIG_PARAVIRT: 'rq.prev_steal_time',
    CONFIG_PARAVIRT_TIME_ACCOUNTING: 'rq.prev_steal_time_rq',
    CONFIG_SCHED_HRTICK: 'rq.hrtick_timer rq.hrtick_time',
    CONFIG_SCHEDSTATS:
      'rq.rq_sched_info rq.rq_cpu_time rq.yld_count rq.sched_count rq.sched_goidle rq.ttwu_count rq.ttwu_local',
    CONFIG_CPU_IDLE: 'rq.idle_state',
    CONFIG_SCHED_CORE: 'rq.core rq.core_tree rq.core_cookie cfs_rq.forceidle_seq',
  }),
  ...present(modern, schedH, {
    CONFIG_THREAD_INFO_IN_TASK: 'task_struct.thread_info task_struct.stack_refcount',
    CONFIG_SMP:
      'task_struct.on_cpu task_struct.wake_entry task_struct.recent_used_cpu task_struct.wake_cpu ' +
      'task_struct.migration_disabled task_struct.pushable_tasks task_struct.pushable_dl_tasks sched_entity.avg',
    CONFIG_FAIR_GROUP_SCHED:
      'sched_entity.depth sched_entity.parent sched_entity.cfs_rq sched_entity.my_q sched_entity.runnable_weight',
    CONFIG_RT_GROUP_SCHED: 'sched_rt_entity.parent sched_rt_entity.rt_rq sched_rt_entity.my_q',
    CONFIG_SCHED_CORE: 'task_struct.core_node task_struct.core_cookie',
    CONFIG_CGROUP_SCHED: 'task_struct.sched_task_group',
    CONFIG_UCLAMP_TASK: 'task_struct.uclamp_req task_struct.uclamp',
    CONFIG_PREEMPT_NOTIFIERS: 'task_struct.preempt_notifiers',
    CONFIG_PREEMPT_RCU: 'task_struct.rcu_read_lock_nesting task_struct.rcu_blocked_node',
    CONFIG_PREEMPT_RT: 'task_struct.softirq_disable_cnt',
    CONFIG_PSI: 'task_struct.in_memstall task_struct.psi_flags',
    CONFIG_CGROUPS:
      'task_struct.no_cgroup_migration task_struct.frozen task_struct.cgroups task_struct.cg_list',
    CONFIG_CPUSETS: 'task_struct.mems_allowed task_struct.mems_allowed_seq',
    CONFIG_NUMA: 'task_struct.mempolicy task_struct.il_prev',
    CONFIG_NUMA_BALANCING: 'task_struct.numa_scan_seq task_struct.numa_preferred_nid task_struct.numa_faults',
    CONFIG_RT_MUTEXES: 'task_struct.pi_waiters task_struct.pi_top_task task_struct.pi_blocked_on',
    CONFIG_DEBUG_MUTEXES: 'task_struct.blocked_on',
    CONFIG_LOCKDEP: 'task_struct.lockdep_depth task_struct.held_locks',
    CONFIG_STACKPROTECTOR: 'task_struct.stack_canary',
    CONFIG_SYSVIPC: 'task_struct.sysvsem task_struct.sysvshm',
    CONFIG_DETECT_HUNG_TASK: 'task_struct.last_switch_count',
    CONFIG_NO_HZ_FULL: 'task_struct.tick_dep_mask',
    CONFIG_IO_URING: 'task_struct.io_uring',
    CONFIG_RSEQ: 'task_struct.rseq',
    CONFIG_VMAP_STACK: 'task_struct.stack_vm_area',
    CONFIG_LIVEPATCH: 'task_struct.patch_state',
    CONFIG_LATENCYTOP: 'task_struct.latency_record_count',
    CONFIG_BLK_CGROUP: 'task_struct.use_memdelay',
    CONFIG_SECURITY: 'task_struct.security',
  }),
  ...present(
    modern,
    { file: 'arch/x86/include/asm/thread_info.h', release: '6.1' },
    {
      CONFIG_SMP: 'thread_info.cpu',
    },
  ),
  ...present(modern, signalH, {
    CONFIG_SCHED_AUTOGROUP: 'signal_struct.autogroup',
    CONFIG_TASKSTATS: 'signal_struct.stats',
    CONFIG_AUDIT: 'signal_struct.audit_tty signal_struct.tty_audit_buf',
    CONFIG_NO_HZ_FULL: 'signal_struct.tick_dep_mask',
  }),
  ...present(modern, mmTypes, {
    CONFIG_MEMCG: 'mm_struct.owner',
    CONFIG_MMU_NOTIFIER: 'mm_struct.notifier_subscriptions',
    CONFIG_NUMA_BALANCING: 'mm_struct.numa_next_scan mm_struct.numa_scan_seq',
    CONFIG_PREEMPT_RT: 'mm_struct.delayed_drop',
    CONFIG_AIO: 'mm_struct.ioctx_lock mm_struct.ioctx_table',
    CONFIG_HUGETLB_PAGE: 'mm_struct.hugetlb_usage',
  }),
  // Since "sched/fair: Implement delayed dequeue", 6.12, and other changes up to then.
  ...present(
    [...modern, 'sched_entity.sched_delayed'],
    { file: 'kernel/sched/sched.h', release: '6.12' },
    {
      CONFIG_SCHED_CLASS_EXT: 'rq.scx',
      CONFIG_GROUP_SCHED_WEIGHT: 'task_group.idle',
      'CONFIG_CFS_BANDWIDTH && CONFIG_SMP': 'rq.cfsb_csd rq.cfsb_csd_list',
    },
  ),
  ...present(
    [...modern, 'sched_entity.sched_delayed'],
    { file: 'include/linux/sched.h', release: '6.12' },
    {
      CONFIG_SCHED_CLASS_EXT: 'task_struct.scx',
      CONFIG_SCHED_MM_CID: 'task_struct.mm_cid task_struct.last_mm_cid task_struct.mm_cid_active',
    },
  ),
  ...present(
    [...modern, 'sched_entity.sched_delayed'],
    { file: 'include/linux/mm_types.h', release: '6.12' },
    {
      CONFIG_SCHED_MM_CID: 'mm_struct.pcpu_cid',
      CONFIG_PER_VMA_LOCK: 'mm_struct.mm_lock_seq',
    },
  ),
  {
    // Under PREEMPT_RT a sleeping lock (wait_lock, tree of waiters, owner), otherwise a raw one.
    effect: 'size',
    where: modern,
    source: { file: 'include/linux/spinlock_types.h', release: '6.1' },
    members: ['task_struct.alloc_lock', 'sighand_struct.siglock'],
    cases: [
      ['!CONFIG_DEBUG_SPINLOCK && !CONFIG_DEBUG_LOCK_ALLOC && CONFIG_SMP && CONFIG_PREEMPT_RT', 32],
      ['!CONFIG_DEBUG_SPINLOCK && !CONFIG_DEBUG_LOCK_ALLOC && CONFIG_SMP', 4],
    ],
  },
  {
    // Raw locks spin whatever the preemption model.
    effect: 'size',
    where: modern,
    source: { file: 'include/linux/spinlock_types_raw.h', release: '6.1' },
    members: ['rq.__lock', 'task_struct.pi_lock'],
    cases: [['!CONFIG_DEBUG_SPINLOCK && !CONFIG_DEBUG_LOCK_ALLOC && CONFIG_SMP', 4]],
  },
  {
    effect: 'bitmap',
    where: modern,
    source: { file: 'include/linux/cpumask.h', release: '6.1' },
    members: ['task_struct.cpus_mask'],
    option: 'CONFIG_NR_CPUS',
  },
  {
    effect: 'bitmap',
    where: [...modern, 'task_struct.mems_allowed'],
    source: { file: 'include/linux/nodemask.h', release: '6.1' },
    members: ['task_struct.mems_allowed'],
    option: 'CONFIG_NODES_SHIFT',
    exponent: true,
  },
  {
    effect: 'aligned',
    where: modern,
    source: schedInternal,
    members: ['rq', 'rq.clock_task', 'cfs_rq.removed', 'task_group.load_avg'],
    when: 'CONFIG_SMP',
    option: 'CONFIG_X86_L1_CACHE_SHIFT',
  },
];
