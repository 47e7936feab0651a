import { setTimeout as sleep } from 'node:timers/promises';

/** To `catch` an error with that only says "not yet": it is told when the time is up. */
type Swallow = (error: unknown) => undefined;

/**
 * Looks until there is something, as long as a slow machine may need.
 * @param look gives undefined or false for "not yet"; what it throws ends the wait
 * @returns what was found
 * @throws Error that names what was waited for and the last error that the look swallowed, after the limit
 */
export async function until<T>(
  what: string,
  look: (swallow: Swallow) => T | Promise<T>,
  limitMs = 120_000,
  everyMs = 50,
): Promise<Exclude<T, undefined | false>> {
  let last: unknown;
  const swallow: Swallow = (error) => {
    last = error;
    return undefined;
  };
  for (const end = performance.now() + limitMs; ; await sleep(everyMs)) {
    const found = await look(swallow);
    if (found !== undefined && found !== false) return found as Exclude<T, undefined | false>;
    if (performance.now() <= end) continue;
    const told = last === undefined ? '' : `; the last look failed: ${last}`;
    throw new Error(`not within ${limitMs / 1000} s: ${what}${told}`, { cause: last });
  }
}
