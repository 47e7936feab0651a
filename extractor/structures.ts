import type { Request } from './engine.ts';
import { spellings } from './names.ts';

/**
 * What the runtime reads of a kernel, by canonical name: run queues, tasks, the way to both, and what holding,
 * releasing and renicing touch. A kernel has those of its time; what these embed comes along. The scheduler's own
 * source file sees all of them, so a reader of DWARF needs no more than its unit.
 */
const STRUCTURES: readonly string[] = [
  // Run queues: O(1), real-time, deadline, fair, sched_ext.
  ...[
    'rq',
    'prio_array',
    'rt_prio_array',
    'rt_rq',
    'dl_rq',
    'cfs_rq',
    'scx_rq',
    'root_domain',
    'sched_domain',
  ],
  ...['sched_entity', 'sched_rt_entity', 'sched_dl_entity', 'sched_ext_entity', 'sched_avg', 'sched_info'],
  ...['sched_statistics', 'load_weight', 'sched_class', 'task_group', 'autogroup', 'cfs_bandwidth'],
  ...['rt_bandwidth', 'balance_callback', 'cpu_stop_work'],
  // Tasks.
  ...['task_struct', 'thread_struct', 'thread_info', 'mm_struct', 'signal_struct', 'sighand_struct', 'cred'],
  ...['user_struct', 'pid', 'upid', 'pid_namespace', 'nsproxy', 'new_utsname', 'uts_namespace', 'pt_regs'],
  ...['io_context', 'rseq', 'restart_block', 'fpu', 'fpstate'],
  // One CPU's own data.
  ...['x8664_pda', 'pcpu_hot', 'irq_stack_union', 'gate_struct'],
  ...['gate_struct64', 'idt_bits', 'desc_ptr', 'kernel_cpustat', 'tss_struct'],
  // Lists, trees, locks, deferred work.
  ...[
    'list_head',
    'hlist_head',
    'hlist_node',
    'rb_node',
    'rb_root',
    'rb_root_cached',
    'llist_head',
    'llist_node',
  ],
  ...['raw_spinlock', 'spinlock', 'qspinlock', 'qrwlock', 'rwlock', 'mutex'],
  ...['refcount_struct', 'kref', 'completion', 'wait_queue_head', 'swait_queue_head', 'cpumask'],
  ...['callback_head', 'rcu_head', 'irq_work', 'timer_list', 'hrtimer', 'work_struct', 'delayed_work'],
  ...['__call_single_node', '__call_single_data', 'call_single_data'],
  // Time and accounting.
  ...['prev_cputime', 'task_cputime', 'task_cputime_atomic', 'psi_group_cpu'],
  // A task's place among the control groups.
  ...['css_set', 'cgroup', 'cgroup_root', 'cgroup_subsys_state', 'kernfs_node'],
];

/** Without these a file is no kernel that domsched can work on. */
const REQUIRED: readonly string[] = ['rq', 'task_struct'];

const ENUMERATIONS: readonly string[] = [
  ...[
    'pid_type',
    'cgroup_subsys_id',
    'system_states',
    'task_work_notify_mode',
    'psi_task_count',
    'hrtimer_mode',
  ],
];

const CONSTANTS: readonly string[] = [
  ...[
    'TASK_COMM_LEN',
    'CSD_FLAG_LOCK',
    'CSD_TYPE_ASYNC',
    'CSD_TYPE_SYNC',
    'CSD_TYPE_IRQ_WORK',
    'CSD_TYPE_TTWU',
  ],
  ...['IRQ_WORK_PENDING', 'IRQ_WORK_BUSY', 'IRQ_WORK_LAZY', 'IRQ_WORK_HARD_IRQ', 'IRQ_WORK_CLAIMED'],
  ...['CSD_FLAG_TYPE_MASK', '__SCHED_FEAT_PLACE_LAG', '__SCHED_FEAT_DELAY_DEQUEUE'],
];

/** A function of the scheduler itself that every release has; where it is, the scheduler's structures are known. */
export const SCHEDULER_CODE = 'schedule';

/** Symbols the runtime looks for; a kernel has those of its time and configuration. */
export const SYMBOLS: readonly string[] = [
  // Per-CPU areas and what is in them.
  ...['runqueues', 'per_cpu__runqueues', '__per_cpu_offset', '_cpu_pda', 'boot_cpu_pda', 'cpu_pda'],
  ...[
    '__per_cpu_start',
    '__per_cpu_end',
    'this_cpu_off',
    'cpu_number',
    'current_task',
    'pcpu_hot',
    'cpu_info',
  ],
  ...[
    '__preempt_count',
    'cpu_current_top_of_stack',
    'hardirq_stack_ptr',
    'irq_stack_union',
    'fixed_percpu_data',
  ],
  ...['cpu_tss_rw', 'gdt_page', 'lazy_list', 'raised_list', 'call_single_queue', 'tick_cpu_sched'],
  ...['tick_cpu_device', 'kernel_cpustat', 'kstat', 'per_cpu__kstat', 'hrtimer_bases', 'timer_bases'],
  // CPUs.
  ...['nr_cpu_ids', '__cpu_online_mask', '__cpu_possible_mask', '__cpu_active_mask', 'cpu_online_map'],
  ...['cpu_possible_map', 'system_state', 'scheduler_running', 'sched_smp_initialized'],
  // Tasks and what the kernel says it is.
  ...[
    'init_task',
    'init_thread_union',
    'init_stack',
    'init_mm',
    'init_uts_ns',
    'system_utsname',
    'linux_banner',
  ],
  ...['tasklist_lock', 'nr_threads', 'init_css_set', 'cgrp_dfl_root', 'init_cgroup_ns'],
  // Address space.
  ...['phys_base', 'page_offset_base', 'vmalloc_base', 'vmemmap_base', 'init_top_pgt', 'init_level4_pgt'],
  ...['swapper_pg_dir', 'idt_table', 'idt_descr', '_text', '_stext', '_etext', '_sdata', '_edata', '_end'],
  ...['__start_rodata', '__end_rodata', '__bss_start', '__bss_stop', '__start_notes', '__stop_notes'],
  // Entries, and regions in which a vCPU must not be when its queues are edited.
  ...['asm_exc_divide_error', 'divide_error', 'entry_SYSCALL_64', 'system_call', 'asm_sysvec_reschedule_ipi'],
  ...[
    'asm_sysvec_call_function_single',
    'asm_sysvec_call_function',
    'asm_sysvec_irq_work',
    'reschedule_interrupt',
  ],
  ...['asm_sysvec_apic_timer_interrupt', 'apic_timer_interrupt', '__entry_text_start', '__entry_text_end'],
  ...[
    '__sched_text_start',
    '__sched_text_end',
    '__lock_text_start',
    '__lock_text_end',
    '__irqentry_text_start',
  ],
  ...[
    '__irqentry_text_end',
    '__softirqentry_text_start',
    '__softirqentry_text_end',
    '__schedule',
    'schedule',
  ],
  ...[
    'preempt_schedule_irq',
    'finish_task_switch',
    'finish_task_switch.isra.0',
    '__switch_to',
    '__switch_to_asm',
  ],
  ...['ret_from_fork', 'ret_from_fork_asm', 'thread_return', 'default_idle', 'native_safe_halt'],
  ...['pv_native_safe_halt', 'mwait_idle', 'try_to_wake_up', 'native_queued_spin_lock_slowpath'],
  // Functions that the guest is made to call, and those that it then comes through.
  ...[
    'recalc_sigpending',
    'process_timeout',
    'delayed_put_task_struct',
    'wake_up_process',
    'task_work_run',
    'get_signal',
    'irq_work_run',
  ],
  ...['irq_work_tick', 'exit_to_user_mode_loop', 'irqentry_exit_to_user_mode'],
  // Functions whose code says what the kernel's macros are (runtime/code/).
  ...['exit_to_user_mode_prepare', 'task_work_add', 'mark_oom_victim', 'resched_curr', '__resched_curr'],
  ...['cgroup_freeze_task', 'cgroup_do_freeze', 'cgroup_freezer_migrate_task', 'cgroup_enter_frozen'],
  ...['do_freezer_trap', 'do_signal_stop', 'ptrace_stop', 'ptrace_stop.part.0', '__kthread_parkme'],
  ...['exit_signals', 'kthread_should_stop', 'io_wq_worker_sleeping'],
  ...['activate_task', 'do_group_exit', '__stack_chk_fail'],
  // Scheduling classes and tunables.
  ...['fair_sched_class', 'rt_sched_class', 'dl_sched_class', 'idle_sched_class', 'stop_sched_class'],
  ...[
    'ext_sched_class',
    '__sched_class_highest',
    '__sched_class_lowest',
    'root_task_group',
    'init_task_group',
  ],
  ...['sysctl_sched_autogroup_enabled', 'sched_prio_to_weight', 'sched_prio_to_wmult', 'prio_to_weight'],
  ...['prio_to_wmult', 'sysctl_sched_features', 'sysctl_sched_latency', 'sysctl_sched_min_granularity'],
  ...['sysctl_sched_base_slice', 'sysctl_sched_wakeup_granularity', 'preempt_dynamic_mode'],
  ...['freezer_active', 'pm_freezing', 'psi_disabled'],
  // Time.
  ...['jiffies', 'jiffies_64', 'tk_core', 'timekeeper', 'xtime', 'wall_to_monotonic', 'tsc_khz', 'tick_nsec'],
];

/** Which structures a command asks for. */
export type Selection =
  | { kind: 'scheduler' }
  | { kind: 'all' }
  /** `names` as the user spells them, `NAME@SOURCE-FILE` among them; with `scheduler`, besides the scheduler's. */
  | { kind: 'named'; names: readonly string[]; scheduler: boolean };

/** The engines' request for a selection. */
export function requestFor(
  selection: Selection,
): Pick<Request, 'structs' | 'enums' | 'constants' | 'required' | 'thorough' | 'units'> {
  const scheduler = { enums: ENUMERATIONS, constants: CONSTANTS };
  if (selection.kind === 'all') return { structs: 'all', required: [], ...scheduler };
  const given = (selection.kind === 'named' ? selection.names : []).map((text) => {
    const at = text.indexOf('@', 1);
    return at < 0 ? { name: text } : { name: text.slice(0, at), unit: text.slice(at + 1) };
  });
  const named = given.map(({ name }) => name);
  const withScheduler = selection.kind === 'scheduler' || selection.scheduler;
  const names = withScheduler ? [...STRUCTURES, ...named] : named;
  return {
    structs: [...new Set(names.flatMap(spellings))],
    required: [...new Set([...(withScheduler ? REQUIRED : []), ...named].map((name) => spellings(name)[0]!))],
    ...(withScheduler ? scheduler : { enums: [], constants: [] }),
    // The scheduler's own structures are defined by its own unit; of any other a driver may have its own of that name.
    thorough: given.some(({ name, unit }) => unit === undefined && !STRUCTURES.includes(name)),
    units: Object.fromEntries(
      given.flatMap(({ name, unit }) =>
        unit === undefined ? [] : spellings(name).map((each) => [each, unit]),
      ),
    ),
  };
}
