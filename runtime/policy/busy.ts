import type { ProcessView, World } from './world.ts';

/** Part of one CPU that a process has to use between two ticks to count as busy: less is housekeeping. */
export const DEFAULT_THRESHOLD = 0.01;

/** Keys of processes that waited for a CPU at the last tick. */
export type WaitingKeys = readonly string[];

/**
 * Tells who is busy: who used the CPU since the last tick, and who waited for one at this look and the last. A single
 * look meets anybody who is awake for a moment, so it counts for nothing by itself.
 * @param threshold part of one CPU, 0 to 1
 */
export function busyJudge(
  world: World,
  threshold: number,
  before: WaitingKeys = [],
): (process: ProcessView) => boolean {
  const waited = new Set(before);
  const enough = threshold * world.elapsedMs * 1e6;
  return (process) =>
    process.state !== 'held' &&
    ((process.ranNs > 0 && process.ranNs >= enough) || (isWaiting(process) && waited.has(process.key)));
}

/** For the next tick's {@link busyJudge}. */
export function waitingNow(processes: Iterable<ProcessView>): string[] {
  return [...processes].filter(isWaiting).map(({ key }) => key);
}

function isWaiting({ state, kernelThread }: ProcessView): boolean {
  return !kernelThread && (state === 'running' || state === 'ready');
}
