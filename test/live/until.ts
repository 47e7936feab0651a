import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits for a condition, as long as a slow machine may need.
 * @throws Error that names it, after the limit
 */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 120_000,
  everyMs = 50,
): Promise<void> {
  for (const end = performance.now() + limitMs; !(await condition()); await sleep(everyMs)) {
    if (performance.now() > end) throw new Error(`not within ${limitMs / 1000} s: ${what}`);
  }
}
