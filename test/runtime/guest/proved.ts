import { CONSTANTS } from '../../../runtime/code/constants.ts';
import { Constants } from '../../../runtime/code/prove.ts';

/** Constants that matter here (include/linux/sched.h, kernel/sched/pelt.h, kernel/time/timer.c); all others are 1. */
const NUMBERS: Readonly<Record<string, bigint>> = {
  PF_EXITING: 4n,
  PF_KTHREAD: 0x20_0000n,
  PR_IO_FLUSHER: 0x18_0000n,
  PELT_MIN_DIVIDER: 46_718n,
  'process_timer.task': 40n,
  JOBCTL_TRAP_FREEZE: 1n << 23n,
  'trap state': 1n,
  TASK_PARKED: 0x40n,
  TASK_STOPPED: 0x104n,
  TASK_TRACED: 8n,
};

/** What the code of a guest would show that exists in memory alone, and has none. */
export const proved = (...lacking: readonly string[]) =>
  new Constants(
    CONSTANTS.map(({ name }) =>
      lacking.includes(name)
        ? { name, value: null, why: `${name} is not proved` }
        : { name, value: NUMBERS[name] ?? 1n, functions: [] },
    ),
    'synthetic',
    { saved: 0, switching: new Map(), scheduling: new Map(), leaving: new Map(), last: new Map() },
  );
