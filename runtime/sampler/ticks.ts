import { setTimeout as sleep } from 'node:timers/promises';

/** How late a timer may be before the tick after it counts as missed, in intervals. */
const SLACK = 0.5;

/**
 * Ticks at multiples of the interval from now on, so that no delay adds up. A tick whose time has passed is left out.
 * @param intervalMs in ms
 * @returns how many ticks were left out before each
 */
export async function* ticks(intervalMs: number, signal: AbortSignal): AsyncGenerator<number> {
  const start = performance.now();
  let next = 0;
  while (!signal.aborted) {
    const wait = start + next * intervalMs - performance.now();
    if (wait > 0) {
      try {
        await sleep(wait, undefined, { signal });
      } catch {
        return;
      }
    }
    const due = (performance.now() - start) / intervalMs;
    const missed = Math.max(0, Math.floor(due + SLACK) - next);
    yield missed;
    next += missed + 1;
  }
}
