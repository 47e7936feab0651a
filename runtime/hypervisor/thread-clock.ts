import { readFileSync } from 'node:fs';

/** Time when a thread last ran, in ms of the scheduler's clock; undefined if the kernel does not tell. */
export function lastRan(thread: number | 'thread-self'): number | undefined {
  try {
    const found = /^se\.exec_start\s*:\s*([0-9.]+)$/m.exec(readFileSync(`/proc/${thread}/sched`, 'latin1'));
    return found === null ? undefined : Number(found[1]);
  } catch {
    return undefined;
  }
}
