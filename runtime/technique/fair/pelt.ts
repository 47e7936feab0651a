/**
 * Per-entity load tracking (kernel/sched/pelt.c), as far as an edit of a queue needs it: the sums of an entity that
 * comes or goes are brought up to its queue's time, so that the time before counts under its old state.
 */

/** A `struct sched_avg` without the members for whole queues. Times in ns, sums and averages in the kernel's units. */
export interface SchedAvg {
  readonly last_update_time: bigint;
  readonly load_sum: bigint;
  readonly runnable_sum: bigint;
  readonly util_sum: bigint;
  readonly period_contrib: bigint;
  readonly load_avg: bigint;
  readonly runnable_avg: bigint;
  readonly util_avg: bigint;
}

/** From kernel/sched/sched-pelt.h: half is left after 32 periods of 1024 µs; the sum of the whole series. */
export const HALF_LIFE = 32;
const LOAD_AVG_MAX = 47_742n;
/** Periods after which nothing of 64 bits is left. */
const FORGOTTEN = BigInt(HALF_LIFE * 63);
const PERIOD = 1_024n;
const CAPACITY_SHIFT = 10n;
const UNSIGNED = 64;
/** Least number that a sum is divided by, in the first moment of a period. */
const MIN_DIVIDER = LOAD_AVG_MAX - PERIOD;
/** y^n in 32-bit fixed point, as Documentation/scheduler/sched-pelt.c computes `runnable_avg_yN_inv`. */
const DECAY = Array.from({ length: HALF_LIFE }, (_, n) =>
  BigInt(Math.floor(0xffff_ffff * 0.5 ** (n / HALF_LIFE))),
);

/**
 * The averages at a later time, as `__update_load_avg_se()` computes them for an entity that was not running.
 * @param now time of its queue, ns
 * @param queued whether it waited in the queue until `now`; otherwise it was in none
 * @param runnable what it counts as runnable meanwhile: 1 for a task, the tasks below it for a group
 * @param weight scaled down
 */
export function advanceAverage(
  avg: SchedAvg,
  now: bigint,
  { queued, runnable, weight }: { queued: boolean; runnable: bigint; weight: bigint },
): SchedAvg {
  const elapsed = BigInt.asIntN(UNSIGNED, now - avg.last_update_time);
  if (elapsed < 0n) return { ...avg, last_update_time: now };
  const micros = elapsed >> 10n;
  if (micros === 0n) return avg;
  const periods = (micros + avg.period_contrib) / PERIOD;
  const rest = (micros + avg.period_contrib) % PERIOD;
  const decayed = (sum: bigint) => decay(sum, periods);
  const contribution = periods === 0n ? micros : segments(periods, PERIOD - avg.period_contrib, rest);
  const counted = queued ? contribution : 0n;
  const sums = {
    last_update_time: avg.last_update_time + (micros << 10n),
    load_sum: decayed(avg.load_sum) + counted,
    runnable_sum: decayed(avg.runnable_sum) + ((counted * runnable) << CAPACITY_SHIFT),
    util_sum: decayed(avg.util_sum),
    period_contrib: rest,
  };
  if (periods === 0n) return { ...avg, ...sums };
  const divider = MIN_DIVIDER + rest;
  return {
    ...sums,
    load_avg: (weight * sums.load_sum) / divider,
    runnable_avg: sums.runnable_sum / divider,
    util_avg: sums.util_sum / divider,
  };
}

/**
 * Why a kernel's averages are not those that we compute, or null.
 * @param minDivider as its code has it
 * @param decay its table `runnable_avg_yN_inv`; undefined if its layout does not say where that is
 */
export function peltRefusal(minDivider: bigint, decay: readonly bigint[] | undefined): string | null {
  if (minDivider !== MIN_DIVIDER)
    return `its averages are of another length: PELT_MIN_DIVIDER is ${minDivider}, not ${MIN_DIVIDER}`;
  if (decay?.every((factor, n) => factor === DECAY[n]) === false)
    return 'its averages fade at another rate (runnable_avg_yN_inv)';
  return null;
}

/** `decay_load()`: sum * y^periods. */
function decay(sum: bigint, periods: bigint): bigint {
  if (periods > FORGOTTEN) return 0n;
  const half = BigInt(HALF_LIFE);
  return ((sum >> (periods / half)) * DECAY[Number(periods % half)]!) >> 32n;
}

/** `__accumulate_pelt_segments()`: the rest of the first period, the whole periods since, and the part of the last. */
function segments(periods: bigint, first: bigint, last: bigint): bigint {
  return decay(first, periods) + LOAD_AVG_MAX - decay(LOAD_AVG_MAX, periods) - PERIOD + last;
}
