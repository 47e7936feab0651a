import type { HeldRecord } from '../surgeon/journal.ts';
import type { TickHold } from '../tick/tick.ts';

/** The owner of a hold that no policy asked for. */
export const OPERATOR = 'operator';

/** A hold of ours, as ticks tell of it. */
export interface Hold extends TickHold {
  /** Monotonic. */
  readonly sinceMs: number;
}

/** The hold that a record tells of: a command's, unless the record names a policy. */
export function holdOf(
  { policy = OPERATOR, reason = 'held by a command', since }: HeldRecord,
  nowMs: number,
): Hold {
  // By the host's clock, which may have been set meanwhile: never longer than it can be, nor negative.
  const elapsed = Math.max(0, Date.now() - Date.parse(since)) || 0;
  return { policy, reason, since, sinceMs: nowMs - elapsed };
}
