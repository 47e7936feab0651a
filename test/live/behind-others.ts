import { readdirSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import type { LiveGuest } from './guest.ts';

/**
 * Guests that let other processes of the host go first, so that what kills and starts daemons gets on.
 * @returns those that are up, whether or not others are
 */
export async function behindOthers(boots: readonly Promise<LiveGuest>[]): Promise<readonly LiveGuest[]> {
  const booted = await Promise.allSettled(boots);
  const guests = booted.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  for (const guest of guests) {
    for (const thread of readdirSync(`/proc/${guest.process.pid}/task`))
      setPriority(Number(thread), constants.priority.PRIORITY_BELOW_NORMAL);
  }
  return guests;
}
