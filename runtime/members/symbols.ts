/** Symbols that the runtime looks for. No kernel has all of them; it depends on release and configuration. */
export const SYMBOLS = [
  // These tell which kernel it is, and where it is.
  ...([
    'linux_banner',
    'phys_base',
    '_text',
    '_stext',
    '_etext',
    '_end',
    '__start_notes',
    '__stop_notes',
  ] as const),
  /** The kernel's own page table: init_top_pgt since 4.13. */
  ...(['init_top_pgt', 'init_level4_pgt', 'swapper_pg_dir'] as const),
  /** A handler in the interrupt table; its prefix is asm_exc_ since 5.8. */
  ...(['asm_exc_divide_error', 'divide_error'] as const),

  // CPUs and their own areas; until 2.6.29 those were an array of PDAs.
  ...(['__per_cpu_offset', '_cpu_pda', 'nr_cpu_ids', '__cpu_active_mask'] as const),
  /** __cpu_online_mask since 4.5. */
  ...(['__cpu_online_mask', 'cpu_online_map'] as const),
  /** "percpu: remove per_cpu__ prefix", 2.6.34. */
  ...(['runqueues', 'per_cpu__runqueues'] as const),
  /** "x86/percpu: Move preempt_count next to current_task", 6.2: the count is in pcpu_hot until 6.15. */
  ...(['__preempt_count', 'pcpu_hot', 'lazy_list'] as const),
  /** "x86/entry/64: Make cpu_entry_area.tss read-only", 4.15. */
  'cpu_tss_rw',

  // Tasks, groups, and tables of the scheduler.
  ...(['init_task', 'root_task_group', 'fair_sched_class'] as const),
  ...(['sched_prio_to_weight', 'sched_prio_to_wmult', 'runnable_avg_yN_inv'] as const),

  // Time.
  ...(['jiffies', 'jiffies_64', 'tick_nsec'] as const),

  /** A static key: "sched/uclamp: Protect uclamp fast path code with static key", 5.9. */
  'sched_uclamp_used',

  // Interrupts that we send, functions that we make a guest call, and functions that a stack shows.
  ...(['asm_sysvec_reschedule_ipi', 'asm_sysvec_irq_work'] as const),
  ...(['recalc_sigpending', 'process_timeout', 'delayed_put_task_struct'] as const),
  ...(['__switch_to_asm', '__schedule', 'schedule'] as const),
  /** Since 6.19 the first is inlined in the second. */
  ...(['irqentry_exit_to_user_mode', 'irqentry_exit'] as const),

  // The code of these functions shows the values of the kernel's macros (runtime/code/).
  ...(['exit_to_user_mode_loop', 'exit_to_user_mode_prepare', 'task_work_add', 'task_work_run'] as const),
  ...([
    'mark_oom_victim',
    'recalc_sigpending_tsk',
    'resched_curr',
    '__resched_curr',
    'preempt_schedule_irq',
  ] as const),
  ...(['cgroup_freeze_task', 'cgroup_do_freeze', 'cgroup_freezer_migrate_task'] as const),
  ...(['cgroup_enter_frozen', 'do_freezer_trap', 'get_signal', 'do_signal_stop'] as const),
  ...(['ptrace_stop', 'ptrace_stop.part.0', '__kthread_parkme', 'kthread_parkme'] as const),
  ...([
    'exit_signals',
    'kthread_should_stop',
    'io_wq_worker_sleeping',
    'wake_up_process',
    'try_to_wake_up',
  ] as const),
  ...(['activate_task', 'do_group_exit', '__stack_chk_fail', 'jiffies64_to_nsecs'] as const),
  ...(['__update_load_avg_se', '__do_sys_prctl', '__x64_sys_prctl'] as const),
  /** Of kernels with O(1) queues: `wake_up` is the one of our own guest. */
  ...(['scheduler_tick', 'schedule_tail', 'finish_task_switch', 'wake_up', 'do_exit'] as const),

  // Only our proofs read these: tests of techniques against a kernel's code, and benches.
  ...(['irq_work_tick', 'irq_work_run', 'page_offset_base'] as const),
] as const;

export type SymbolName = (typeof SYMBOLS)[number];

/** Enumerators that the runtime looks for. */
export const ENUMERATORS = ['IRQ_WORK_PENDING', 'IRQ_WORK_BUSY', 'IRQ_WORK_LAZY'] as const;

export type EnumeratorName = (typeof ENUMERATORS)[number];
