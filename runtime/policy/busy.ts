import { type ProcessView, type World, wholeMs } from './world.ts';

/** A process is busy if it uses at least this part of one CPU between two ticks; less is housekeeping. */
export const DEFAULT_THRESHOLD = 0.01;

/** Keys of processes that waited for a CPU at the last tick. */
export type WaitingKeys = readonly string[];

/**
 * Decides which processes are busy: those that used the CPU since the last tick, or waited for one at both this look
 * and the last, or were on a CPU at looks between the two. One look alone is not enough, since it meets any process that
 * is awake for a moment. In an interval that was cut short a process needs as much CPU time as in a whole one, but for one
 * elsewhere, of which its host tells a part of a CPU.
 * @param threshold part of one CPU, 0 to 1
 */
export function busyJudge(
  world: World,
  threshold: number,
  before: WaitingKeys = [],
): (process: ProcessView) => boolean {
  const waited = new Set(before);
  const enoughNs = (ms: number) => threshold * ms * 1e6;
  const enough = enoughNs(wholeMs(world));
  const enoughElsewhere = enoughNs(world.elapsedMs);
  return (process) =>
    process.state !== 'held' &&
    (process.roused === true ||
      (process.ranNs > 0 && process.ranNs >= (process.elsewhere ? enoughElsewhere : enough)) ||
      (isWaiting(process) && waited.has(process.key)));
}

/** Whether nobody counts it as busy, now or at the next tick, whatever the threshold. */
export function isAtRest({ ranNs, state, roused }: ProcessView): boolean {
  return ranNs === 0 && state !== 'running' && state !== 'ready' && roused !== true;
}

/** Input of the next tick's {@link busyJudge}. */
export function waitingNow(processes: Iterable<ProcessView>): string[] {
  return [...processes].filter(isWaiting).map(({ key }) => key);
}

function isWaiting({ state, kernelThread }: ProcessView): boolean {
  return !kernelThread && (state === 'running' || state === 'ready');
}
