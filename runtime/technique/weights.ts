import { DomschedError } from '../error.ts';

/** Nice values of the kernel's tables (`sched_prio_to_weight`, kernel/sched/core.c): from the first on, so many. */
export const LOWEST_NICE = -20;
export const NICE_LEVELS = 40;

/**
 * SCHED_FIXEDPOINT_SHIFT: weights have 10 more bits than the tables ("sched/fair: Generalize the load/util averages
 * resolution definition", 4.7).
 */
export const WEIGHT_SHIFT = 10n;
/** NICE_0_LOAD: the weight of a thread with nice 0. */
export const NICE_0_LOAD = 1n << 20n;

/** @throws DomschedError `usage` */
export function checkNice(nice: number): void {
  if (Number.isInteger(nice) && nice >= LOWEST_NICE && nice < LOWEST_NICE + NICE_LEVELS) return;
  throw new DomschedError('usage', `nice ${nice} is not in -20..19`, { nice });
}

/**
 * Why a kernel's weights are on another scale than ours, or null. The root group, which nobody can reweight, has the
 * weight of nice 0 (`sched_init()`, ROOT_TASK_GROUP_LOAD).
 * @param normal the table's weight of nice 0
 * @param root `root_task_group.shares`
 */
export function scaleRefusal(normal: bigint, root: bigint): string | null {
  if (normal << WEIGHT_SHIFT === root && root === NICE_0_LOAD) return null;
  return `its weights are on another scale: nice 0 is ${normal} in its table, its root group weighs ${root}`;
}

/** `scale_load_down()`: never less than 2, unless it is nothing. */
export function scaledDown(weight: bigint): bigint {
  const low = weight >> WEIGHT_SHIFT;
  return weight === 0n ? 0n : low > 2n ? low : 2n;
}

/** `calc_delta_fair()`: converts an entity's time to virtual time. */
export function virtualTime(time: bigint, weight: bigint): bigint {
  return weight === 0n ? time : (time * NICE_0_LOAD) / weight;
}
