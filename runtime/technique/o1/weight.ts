import { NICE_LEVELS } from '../weights.ts';

/** `task.load_weight` of a task with nice 0 (SCHED_LOAD_SCALE, include/linux/sched.h, 2.6.18). */
const LOAD_SCALE = 128;
/** Time slices in ms: that of nice 0, and the shortest (DEF_TIMESLICE, MIN_TIMESLICE, kernel/sched.c). */
const DEFAULT_SLICE_MS = 100;
const SHORTEST_SLICE_MS = 5;
/** Factor by which the slice is longer for negative nice values. */
const FAVOURED = 4;

/**
 * The weight that `set_load_weight()` gives a task that is not real-time: its time slice in ticks relative to that of
 * nice 0 ("[PATCH] sched: implement smpnice", 2.6.18, kernel/sched.c). Each division rounds down, as in the kernel.
 * @param staticPrio `static_prio`
 * @param priorities MAX_PRIO
 * @param hz timer ticks per second
 */
export function loadWeight(staticPrio: number, priorities: number, hz: number): bigint {
  const ticks = (ms: number) => Math.floor((ms * hz) / 1000);
  const halfLevels = NICE_LEVELS / 2;
  const full = ticks(DEFAULT_SLICE_MS) * (staticPrio < priorities - halfLevels ? FAVOURED : 1);
  const scaled = Math.floor((full * (priorities - staticPrio)) / halfLevels);
  const slice = Math.max(scaled, Math.max(ticks(SHORTEST_SLICE_MS), 1));
  return BigInt(Math.floor((slice * LOAD_SCALE) / ticks(DEFAULT_SLICE_MS)));
}
