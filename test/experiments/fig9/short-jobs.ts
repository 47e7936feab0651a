import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestCounter } from '../../live/guest-counters.ts';

const LIMIT_MS = 120_000;
const CALIBRATION = 20_000;
const TRIES = 5;

/** Has the guest sleep and then compute so many rounds of a loop. @returns how long that took from when it was to wake, ms */
export type RunJob = (loops: number) => Promise<number>;

/** @param job the page of `workload jobs` */
export function shortJobs(job: GuestCounter): RunJob {
  let number = 0n;
  return async (loops) => {
    const done = job.read();
    number += 1n;
    job.write(2, BigInt(loops));
    job.write(1, number);
    for (const end = performance.now() + LIMIT_MS; job.read() === done; await sleep(5))
      if (performance.now() > end) throw new Error('a short job does not end');
    return Number(job.read(3)) / 1e6;
  };
}

/** How many rounds of the loop are 1 ms, where nothing else runs. */
export async function loopsOfAMs(runJob: RunJob): Promise<number> {
  const tries: number[] = [];
  for (let i = 0; i < TRIES; i++) tries.push(await runJob(CALIBRATION));
  return CALIBRATION / Math.min(...tries);
}
