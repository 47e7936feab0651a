/**
 * The kernel's macros that edits depend on, with the functions whose machine code shows their values. Debug information
 * does not have them, and they change: "x86: Use generic TIF bits" (6.18) moved nearly all thread flags.
 */
import type { SymbolName } from '../members/symbols.ts';
import {
  addends,
  argumentPlaces,
  argumentsOf,
  exclusions,
  guards,
  lockedClears,
  lockedSets,
  maskedComparisons,
  moved,
  multipliers,
  percpuClears,
  plainClears,
  plainSets,
  registerTests,
  stores,
  tests,
} from './patterns.ts';
import type { ConstantRow, Surroundings, Witness } from './witness.ts';

const flags = (kernel: Surroundings) => kernel.place('task_struct', 'thread_flags');
const processFlags = (kernel: Surroundings) => kernel.place('task_struct', 'flags');
const jobctl = (kernel: Surroundings) => kernel.place('task_struct', 'jobctl');
const state = (kernel: Surroundings) => kernel.place('task_struct', 'state');

const notZero = (values: readonly bigint[]) => values.filter((value) => value !== 0n);

/** Zero is TASK_RUNNING, which the same function may store too. */
const storesState = (...functions: readonly SymbolName[]): Witness => ({
  functions,
  says: 'is',
  how: 'stores it to task.__state',
  read: (code, kernel) => notZero(stores(code, state(kernel))),
});

/** "entry: Provide generic syscall exit function", 5.9. Until 6.5 some compilers inline it in its caller. */
const EXIT_LOOP: readonly SymbolName[] = ['exit_to_user_mode_loop', 'exit_to_user_mode_prepare'];
const THREAD_INFO =
  'arch/x86/include/asm/thread_info.h; include/asm-generic/thread_info_tif.h since "x86: Use generic TIF bits", 6.18';
const SCHED = 'include/linux/sched.h';

/** Decides whether TIF_SIGPENDING must be set; clang leaves it a function of its own where gcc inlines it. */
const PENDING: readonly SymbolName[] = ['recalc_sigpending_tsk', 'recalc_sigpending'];

/** Units of time in a period of PELT (kernel/sched/pelt.c). */
const PERIOD = 1_024n;

/** TIF_MEMDIE must be ruled out: a thread with it set would be taken for a victim of the OOM killer. */
const notMemdie: Witness = {
  functions: ['mark_oom_victim'],
  says: 'not',
  how: 'is not what it sets in thread_info.flags (TIF_MEMDIE)',
  read: (code, kernel) => lockedSets(code, flags(kernel)),
  optional: true,
};

export const CONSTANTS = [
  {
    name: 'TIF_SIGPENDING',
    source: THREAD_INFO,
    kind: 'bit',
    witnesses: [
      {
        functions: PENDING,
        says: 'is',
        how: 'sets it in thread_info.flags',
        read: (code, kernel) => lockedSets(code, flags(kernel)),
        helpers: true,
      },
      {
        functions: ['recalc_sigpending'],
        says: 'is',
        how: 'clears it there',
        read: (code, kernel) => lockedClears(code, flags(kernel)),
      },
      notMemdie,
    ],
  },
  {
    name: 'TIF_NOTIFY_RESUME',
    source: THREAD_INFO,
    kind: 'bit',
    witnesses: [
      {
        functions: EXIT_LOOP,
        says: 'is',
        how: 'clears it in thread_info.flags, then calls task_work_run(), and does not take it for a signal',
        read: (code, kernel) => {
          // TIF_NOTIFY_SIGNAL makes works run too ("task_work: Use TIF_NOTIFY_SIGNAL if available", 5.11).
          const pending = kernel.value('TIF_SIGPENDING');
          const signals = registerTests(code);
          return lockedClears(code, flags(kernel), kernel.address('task_work_run')).filter(
            (bit) => !signals.includes(bit | pending),
          );
        },
        helpers: true,
      },
      {
        functions: ['task_work_add'],
        says: 'among',
        how: 'sets it there',
        read: (code, kernel) => lockedSets(code, flags(kernel)),
      },
      {
        functions: PENDING,
        says: 'not',
        how: 'is not what it sets (TIF_SIGPENDING)',
        read: (code, kernel) => lockedSets(code, flags(kernel)),
        helpers: true,
      },
      notMemdie,
    ],
  },
  {
    name: 'TIF_NEED_RESCHED',
    source: THREAD_INFO,
    kind: 'bit',
    witnesses: [
      {
        functions: ['resched_curr'],
        says: 'is',
        // "sched: Add Lazy preemption model", 6.13, has two such flags and one function that sets either.
        how: 'sets it in thread_info.flags, or gives its number to __resched_curr()',
        read: (code, kernel) => {
          const common = kernel.addressIfAny('__resched_curr');
          const numbers = common === undefined ? [] : argumentsOf(code, common, 'rsi');
          return [...lockedSets(code, flags(kernel)), ...numbers.map((bit) => 1n << BigInt.asUintN(6, bit))];
        },
      },
      {
        functions: EXIT_LOOP,
        says: 'within',
        how: 'tests for it before it calls schedule()',
        read: (code, kernel) => guards(code, kernel.address('schedule'), flags(kernel)),
      },
      {
        functions: ['preempt_schedule_irq'],
        says: 'among',
        // Lazy requests of PREEMPT_RT and of 6.13 are in the mask of the loop above, but not in this one.
        how: 'tests for it, to call __schedule() again',
        read: (code, kernel) => [...registerTests(code), ...tests(code, flags(kernel))],
        optional: true,
      },
      {
        functions: ['task_work_add'],
        says: 'not',
        how: 'is not what it sets (TIF_NOTIFY_RESUME, TIF_NOTIFY_SIGNAL)',
        read: (code, kernel) => lockedSets(code, flags(kernel)),
      },
      {
        functions: PENDING,
        says: 'not',
        how: 'is not what it sets (TIF_SIGPENDING)',
        read: (code, kernel) => lockedSets(code, flags(kernel)),
        helpers: true,
      },
      notMemdie,
    ],
  },
  {
    name: 'EXIT_TO_USER_MODE_WORK',
    source: 'include/linux/entry-common.h, include/linux/irq-entry-common.h since 6.14',
    kind: 'value',
    witnesses: [
      {
        functions: EXIT_LOOP,
        says: 'is',
        how: 'tests for all of it, these three flags among them, before it lets a thread go to user mode',
        read: (code, kernel) => {
          const three =
            kernel.value('TIF_SIGPENDING') |
            kernel.value('TIF_NOTIFY_RESUME') |
            kernel.value('TIF_NEED_RESCHED');
          return registerTests(code).filter((mask) => (mask & three) === three);
        },
      },
    ],
  },
  {
    name: 'PREEMPT_NEED_RESCHED',
    source:
      'arch/x86/include/asm/preempt.h; "sched, x86: Provide a per-cpu preempt_count implementation", 3.13; bit 63 of a long since 7.3',
    kind: 'bit',
    witnesses: [
      {
        functions: ['__resched_curr', 'resched_curr'],
        says: 'is',
        how: 'clears it in the preemption count of its own CPU, which is an int or, with a bit that no int has, a long',
        read: (code, kernel) =>
          percpuClears(code, kernel.preemptCount).map(({ bits, size }) =>
            size === preemptCountSize(bits) ? bits : 0n,
          ),
      },
    ],
  },
  {
    name: 'JOBCTL_TRAP_FREEZE',
    source: 'include/linux/sched/jobctl.h; "cgroup: cgroup v2 freezer", 5.2',
    kind: 'bit',
    witnesses: [
      {
        functions: ['cgroup_freeze_task', 'cgroup_do_freeze', 'cgroup_freezer_migrate_task'],
        says: 'is',
        how: 'sets it in task.jobctl',
        read: (code, kernel) => plainSets(code, jobctl(kernel)),
      },
      {
        functions: ['cgroup_freeze_task', 'cgroup_do_freeze', 'cgroup_freezer_migrate_task'],
        says: 'is',
        how: 'clears it there',
        read: (code, kernel) => plainClears(code, jobctl(kernel)),
      },
      {
        functions: PENDING,
        says: 'within',
        how: 'tests task.jobctl for it',
        read: (code, kernel) => tests(code, jobctl(kernel)),
      },
      {
        functions: ['do_freezer_trap', 'get_signal'],
        says: 'among',
        how: 'compares it, and no other of the bits that matter, with task.jobctl',
        read: (code) => maskedComparisons(code),
        optional: true,
      },
    ],
  },
  {
    name: 'PF_EXITING',
    source: SCHED,
    kind: 'bit',
    witnesses: [
      {
        functions: ['exit_signals'],
        says: 'is',
        how: 'sets it in task.flags',
        read: (code, kernel) => plainSets(code, processFlags(kernel)),
      },
    ],
  },
  {
    name: 'PF_KTHREAD',
    source: `${SCHED}; "introduce PF_KTHREAD flag", 2.6.27`,
    kind: 'bit',
    witnesses: [
      {
        functions: ['kthread_should_stop'],
        says: 'is',
        how: 'warns of a task.flags without it',
        read: (code, kernel) => tests(code, processFlags(kernel)),
        helpers: true,
      },
    ],
  },
  {
    name: 'PF_IO_WORKER',
    source: `${SCHED}; "kernel: io-wq: ... PF_IO_WORKER", 5.5`,
    kind: 'bit',
    // A kernel without io_uring (CONFIG_IO_URING) has no such workers.
    onlyWith: { symbol: 'io_wq_worker_sleeping', member: 'io_uring' },
    witnesses: [
      {
        functions: ['schedule'],
        says: 'is',
        how: 'tests task.flags for it before it calls io_wq_worker_sleeping()',
        read: (code, kernel) => guards(code, kernel.address('io_wq_worker_sleeping'), processFlags(kernel)),
        helpers: true,
      },
    ],
  },
  {
    name: 'PF_USER_WORKER',
    source: `${SCHED}; until "fork/vm: Move common PF_IO_WORKER behavior to new flag", 6.4, PF_IO_WORKER`,
    kind: 'bit',
    witnesses: [
      {
        functions: ['get_signal'],
        says: 'is',
        how: 'lets it be in task.flags and does not call do_group_exit() then',
        read: (code, kernel) => exclusions(code, kernel.address('do_group_exit'), processFlags(kernel)),
      },
    ],
  },
  {
    name: 'trap state',
    source: `kernel/signal.c, do_freezer_trap(); TASK_FREEZABLE since "freezer,sched: Rewrite core freezer logic", 6.1`,
    kind: 'value',
    witnesses: [
      {
        functions: ['do_freezer_trap', 'get_signal'],
        says: 'is',
        // Without control groups there is nothing to call before it sleeps.
        how: 'stores it to task.__state, then calls cgroup_enter_frozen(), or schedule() where there is no such function',
        read: (code, kernel) => {
          const next = kernel.addressIfAny('cgroup_enter_frozen') ?? kernel.address('schedule');
          return notZero(stores(code, state(kernel), next));
        },
      },
    ],
  },
  {
    name: 'TASK_NORMAL',
    source: SCHED,
    kind: 'value',
    witnesses: [
      {
        functions: ['wake_up_process'],
        says: 'is',
        how: 'gives it to try_to_wake_up() as the states to wake from',
        read: (code, kernel) => argumentsOf(code, kernel.address('try_to_wake_up'), 'rsi'),
      },
    ],
  },
  {
    name: 'TASK_STOPPED',
    source: SCHED,
    kind: 'value',
    witnesses: [storesState('do_signal_stop')],
  },
  {
    name: 'TASK_TRACED',
    source: `${SCHED}; without TASK_WAKEKILL since "sched,signal,ptrace: Rework TASK_TRACED, TASK_STOPPED state", 5.19`,
    kind: 'value',
    witnesses: [storesState('ptrace_stop', 'ptrace_stop.part.0')],
  },
  {
    name: 'TASK_PARKED',
    source: `${SCHED}; "kthread: Implement park/unpark facility", 3.6`,
    kind: 'bit',
    // clang inlines the first, which only this file calls, in the second.
    witnesses: [storesState('__kthread_parkme', 'kthread_parkme')],
  },
  {
    name: 'TASK_WAKING',
    source: SCHED,
    kind: 'bit',
    witnesses: [storesState('try_to_wake_up')],
  },
  {
    name: 'TASK_ON_RQ_QUEUED',
    source: 'kernel/sched/sched.h',
    kind: 'value',
    witnesses: [
      {
        functions: ['activate_task'],
        says: 'is',
        how: 'stores it to task.on_rq',
        read: (code, kernel) => notZero(stores(code, kernel.place('task_struct', 'on_rq'))),
      },
    ],
  },
  {
    name: 'TICK_NSEC',
    source: 'include/linux/jiffies.h',
    kind: 'value',
    witnesses: [
      {
        functions: ['jiffies64_to_nsecs'],
        says: 'is',
        how: 'multiplies ticks by it, where a second is so many whole ticks',
        read: (code) => multipliers(code).filter((factor) => factor > 0n && 1_000_000_000n % factor === 0n),
      },
    ],
  },
  {
    name: 'process_timer.task',
    source:
      'kernel/time/timer.c, struct process_timer; "timer: Remove init_timer_on_stack() in favor of timer_setup_on_stack()", 4.15',
    kind: 'value',
    witnesses: [
      {
        functions: ['process_timeout'],
        says: 'is',
        // Optimization at link time inlines wake_up_process().
        how: 'reads there, behind the timer that it gets, the task that it gives to wake_up_process() or try_to_wake_up()',
        read: (code, kernel) =>
          (['wake_up_process', 'try_to_wake_up'] as const).flatMap((name) =>
            argumentPlaces(code, kernel.address(name), 'rdi'),
          ),
      },
    ],
  },
  {
    name: 'PELT_MIN_DIVIDER',
    source: 'kernel/sched/pelt.h; LOAD_AVG_MAX is 1024 more',
    kind: 'value',
    witnesses: [
      {
        functions: ['__update_load_avg_se'],
        says: 'is',
        how: 'adds it to a period, and has the whole series, which is a period more, as another number',
        read: (code) => {
          const numbers = moved(code);
          return addends(code).filter((sum) => sum > PERIOD && numbers.includes(sum + PERIOD));
        },
        helpers: true,
      },
    ],
  },
  {
    name: 'PR_IO_FLUSHER',
    source: 'kernel/sys.c; "prctl: PR_{G,S}ET_IO_FLUSHER to support controlling memory reclaim", 5.6',
    kind: 'value',
    witnesses: [
      {
        functions: ['__do_sys_prctl', '__x64_sys_prctl'],
        says: 'is',
        how: 'sets several bits at once in task.flags, and asks whether all of them are set',
        read: (code, kernel) => {
          const asked = [...maskedComparisons(code), ...registerTests(code)];
          return plainSets(code, processFlags(kernel)).filter(
            (bits) => (bits & (bits - 1n)) !== 0n && asked.includes(bits),
          );
        },
      },
      {
        functions: ['__do_sys_prctl', '__x64_sys_prctl'],
        says: 'among',
        how: 'clears them there',
        read: (code, kernel) => plainClears(code, processFlags(kernel)),
      },
    ],
  },
] as const satisfies readonly ConstantRow[];

/** Width of a preemption count in bytes, by the bit of its request (`raw_cpu_and_4()`, `raw_cpu_and_8()`). */
export function preemptCountSize(needResched: bigint): 4 | 8 {
  return needResched < 1n << 32n ? 4 : 8;
}
