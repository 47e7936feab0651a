/** What protected processes may wait at most. */
export type WaitTarget =
  /** For a CPU within a window, in ms. */
  | { readonly waitMs: number }
  /** So that they run for at least this part of the time in which they want a CPU. */
  | { readonly share: number }
  /** From one look to the next, in ms, at 99 of 100 looks. */
  | { readonly p99Ms: number };

/** A process's account of one window; times in ms. */
export interface WaitSum {
  readonly ms: number;
  readonly ranMs: number;
  /** Looks at which it had waited more than {@link counts}. */
  readonly beyond: number;
}

export interface TargetWindow {
  readonly windowMs: number;
  /** Looks in it. */
  readonly looks: number;
}

/** A target as a number: how much of it is used up. */
export interface TargetGauge {
  /** What a process waits at one look adds to {@link WaitSum.beyond} above this, in ms. */
  readonly counts: number;
  /** Part of the target that is used up; 1 is all of it. */
  used(sum: WaitSum, window: TargetWindow): number;
  /** The same, should it wait `costMs` at the next look while it wants to run for `wantedMs`. */
  usedWith(sum: WaitSum, window: TargetWindow, costMs: number, wantedMs: number): number;
  /** What a process had, in words. */
  tell(sum: WaitSum, window: TargetWindow): string;
}

/** Looks of which one may be worse than the target. */
const P99_LOOKS = 100;

export function gauge(target: WaitTarget): TargetGauge {
  if ('share' in target) return ofShare(target.share);
  return 'p99Ms' in target ? ofLooks(target.p99Ms) : ofSum(target.waitMs);
}

function ofSum(waitMs: number): TargetGauge {
  return {
    counts: Infinity,
    used: ({ ms }) => ms / waitMs,
    usedWith: ({ ms }, _, costMs) => (ms + costMs) / waitMs,
    tell: ({ ms }, { windowMs }) => `waited ${ms.toFixed(1)} ms in ${windowMs / 1000} s`,
  };
}

function ofShare(share: number): TargetGauge {
  const used = (ms: number, ranMs: number) => (ms === 0 ? 0 : ms / ((1 - share) * (ms + ranMs)));
  return {
    counts: Infinity,
    used: ({ ms, ranMs }) => used(ms, ranMs),
    usedWith: ({ ms, ranMs }, _, costMs, wantedMs) => used(ms + costMs, ranMs + wantedMs),
    tell: ({ ms, ranMs }, { windowMs }) => {
      const had = Math.round((100 * ranMs) / Math.max(ms + ranMs, Number.EPSILON));
      return `had a CPU for ${had} % of the time in which it wanted one, in ${windowMs / 1000} s`;
    },
  };
}

function ofLooks(p99Ms: number): TargetGauge {
  // A window of less than a hundred looks has room for none.
  const used = (beyond: number, { looks }: TargetWindow) => (beyond * P99_LOOKS) / Math.max(1, looks);
  return {
    counts: p99Ms,
    used: ({ beyond }, window) => used(beyond, window),
    usedWith: ({ beyond }, window, costMs) => Math.min(costMs / p99Ms, used(beyond + 1, window)),
    tell: ({ beyond }, { looks, windowMs }) =>
      `waited more than ${p99Ms} ms at ${beyond} of ${Math.round(looks)} looks, in ${windowMs / 1000} s`,
  };
}
