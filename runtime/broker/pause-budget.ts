/** Longest pause, whatever is asked for in it, in ms. */
export const LONGEST_PAUSE_MS = 10_000;
/** The part of its time for which a machine may stand, in the long run. */
export const PAUSED_PART = 1 / 4;
/** How long it may have stood beyond that part before it has to run on first, in ms. */
export const BURST_MS = 5_000;

/** How long a machine has stood beyond its part, at some time; both in ms. */
export interface Stood {
  readonly beyondMs: number;
  readonly atMs: number;
}

/** Of a machine that was not paused yet. */
export const NEVER_STOOD: Stood = { beyondMs: 0, atMs: 0 };

/**
 * What it has stood beyond its part is worked off while time passes: in any time T it stands for no more than
 * `BURST_MS + LONGEST_PAUSE_MS + T * PAUSED_PART`, because a pause may be begun below the burst and is no longer than the longest.
 */
export function stoodBeyond({ beyondMs, atMs }: Stood, nowMs: number): number {
  return Math.max(0, beyondMs - (nowMs - atMs) * PAUSED_PART);
}

/** @param fromMs when a pause began, that ends now */
export function afterPause(stood: Stood, fromMs: number, nowMs: number): Stood {
  const lastedMs = Math.max(0, nowMs - fromMs);
  return { beyondMs: stoodBeyond(stood, fromMs) + lastedMs * (1 - PAUSED_PART), atMs: nowMs };
}

/** How long to wait before it may be paused again; 0 if it may be now. */
export function runsFirstMs(stood: Stood, nowMs: number): number {
  return Math.max(0, stoodBeyond(stood, nowMs) - BURST_MS) / PAUSED_PART;
}
