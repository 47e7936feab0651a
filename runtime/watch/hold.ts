import type { HeldRecord } from '../surgeon/journal.ts';
import type { TickHold } from '../tick/tick.ts';

/** Owner of a hold that no policy requested. */
export const OPERATOR = 'operator';

/** Owner of a hold that no record here tells of: another host's before a migration, or an earlier boot's of this one. */
export const UNKNOWN = 'unknown';
const UNKNOWN_REASON = 'held in the guest itself, and no record here tells by whom';

/** A hold that was found in the guest. */
export function unknownHold(since: Date, sinceMs: number): Hold {
  return { policy: UNKNOWN, reason: UNKNOWN_REASON, since: since.toISOString(), sinceMs };
}

/** One of our holds, as ticks report it. */
export interface Hold extends TickHold {
  /** Monotonic, in ms. */
  readonly sinceMs: number;
}

/** The hold that a record describes: a command's unless the record names a policy. */
export function holdOf(
  { policy = OPERATOR, reason = 'held by a command', since }: HeldRecord,
  nowMs: number,
): Hold {
  // The host's clock may have been set since: allow no negative time.
  const elapsed = Math.max(0, Date.now() - Date.parse(since)) || 0;
  return { policy, reason, since, sinceMs: nowMs - elapsed };
}
