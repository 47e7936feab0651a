/** Macros of kernels with O(1) run queues (2.6.0 to 2.6.22) that edits depend on, as constants.ts has those of later ones. */
import {
  argumentsOf,
  lockedClears,
  lockedSets,
  plainClears,
  plainSets,
  registerComparisons,
  tests,
} from './patterns.ts';
import type { ConstantRow, Surroundings } from './witness.ts';

const flags = (kernel: Surroundings) => kernel.place('thread_info', 'flags');
const processFlags = (kernel: Surroundings) => kernel.place('task_struct', 'flags');
const state = (kernel: Surroundings) => kernel.place('task_struct', 'state');

export const O1_CONSTANTS = [
  {
    name: 'TIF_NEED_RESCHED',
    source: 'include/asm-x86_64/thread_info.h',
    kind: 'bit',
    witnesses: [
      {
        functions: ['schedule'],
        says: 'is',
        how: 'clears it in thread_info.flags',
        // A kernel that came up on one CPU has a nop where the lock prefix was ("[PATCH] SMP alternatives", 2.6.17).
        read: (code, kernel) => [...lockedClears(code, flags(kernel)), ...plainClears(code, flags(kernel))],
      },
      {
        functions: ['scheduler_tick'],
        says: 'is',
        how: 'sets it there',
        read: (code, kernel) => [...lockedSets(code, flags(kernel)), ...plainSets(code, flags(kernel))],
        // "[PATCH] sched: extract load calculation from rebalance_tick" and others, 2.6.20, moved it into callees.
        optional: true,
      },
      {
        functions: ['recalc_sigpending'],
        says: 'not',
        how: 'is not what it sets there (TIF_SIGPENDING)',
        read: (code, kernel) => [...lockedSets(code, flags(kernel)), ...plainSets(code, flags(kernel))],
        optional: true,
      },
    ],
  },
  {
    /** The number that processes are listed by; with another one an exiting process might be held. */
    name: 'PF_EXITING',
    source: 'include/linux/sched.h',
    kind: 'bit',
    chosen: 4n,
    witnesses: [
      {
        functions: ['do_exit'],
        says: 'among',
        how: 'sets it in task.flags, and PF_DEAD too (until 2.6.18)',
        read: (code, kernel) => plainSets(code, processFlags(kernel)),
      },
      {
        functions: ['finish_task_switch', 'schedule_tail'],
        says: 'not',
        how: 'tests task.flags for another one (PF_DEAD)',
        read: (code, kernel) => tests(code, processFlags(kernel)),
        optional: true,
      },
    ],
  },
  {
    /**
     * State that makes `schedule()` take a thread off its queue: TASK_NONINTERACTIVE alone. The kernel sets that bit
     * only together with others ("[PATCH] sched: TASK_NONINTERACTIVE", 2.6.14; unused before), so this state identifies
     * our holds, and no wake-up, signal or SIGCONT looks for it. TASK_STOPPED would look like a user's SIGSTOP.
     */
    name: 'state of a hold',
    source: 'include/linux/sched.h, TASK_NONINTERACTIVE',
    kind: 'bit',
    chosen: 64n,
    witnesses: [
      {
        functions: ['wake_up_process', 'wake_up'],
        says: 'not',
        how: 'wakes tasks in these states',
        read: (code, kernel) => argumentsOf(code, kernel.address('try_to_wake_up'), 'rsi'),
      },
      {
        functions: ['schedule'],
        says: 'not',
        how: 'looks for these states of the task that it leaves',
        read: (code, kernel) => tests(code, state(kernel)),
        optional: true,
      },
      {
        functions: ['finish_task_switch', 'schedule_tail'],
        says: 'not',
        how: 'compares with these numbers, of which one is TASK_DEAD (2.6.18)',
        read: (code) => registerComparisons(code),
        optional: true,
      },
    ],
  },
] as const satisfies readonly ConstantRow[];
