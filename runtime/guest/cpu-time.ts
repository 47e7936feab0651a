/** CPU time, in ns. */
export interface CpuTime {
  utimeNs: number;
  stimeNs: number;
  /** Time on a CPU as the scheduler measured it. It is exact, while the two above are sampled at ticks. */
  runtimeNs: number;
}

/**
 * Splits the measured run time into user and system time as the kernel does before /proc shows it: in the proportion of
 * the ticks seen, and never less than was shown before (Linux kernel/sched/cputime.c, `cputime_adjust`). All times are
 * in ns.
 * @param before the times that /proc showed last, which the kernel keeps in `prev_cputime`
 */
export function adjustCpuTime(
  utime: number,
  stime: number,
  runtime: number,
  before: { utime: number; stime: number },
): CpuTime {
  // Shown values only grow: they stand until the scheduler's time has passed them.
  if (before.utime + before.stime >= runtime) {
    return { utimeNs: before.utime, stimeNs: before.stime, runtimeNs: runtime };
  }
  let system: number;
  if (stime === 0) system = 0;
  else if (utime === 0) system = runtime;
  else system = Math.floor((runtime * stime) / (stime + utime));
  if (system < before.stime) system = before.stime;
  let user = runtime - system;
  if (user < before.utime) {
    user = before.utime;
    system = runtime - user;
  }
  return { utimeNs: user, stimeNs: system, runtimeNs: runtime };
}

/** Measured and sampled time differ by what is not yet accounted; take the larger, since both only grow. */
export function cpuTime({ runtimeNs, utimeNs, stimeNs }: Readonly<CpuTime>): number {
  return Math.max(runtimeNs, utimeNs + stimeNs);
}
