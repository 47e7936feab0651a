import type { Action, World } from './world.ts';

export interface HoldLimit {
  /** Longest time that a process is held without a break, in ms. */
  readonly maxHoldMs: number;
  /** How long it then goes on before it may be held again, in ms. */
  readonly sliceMs: number;
}

/** When the slices end that are running, by process. */
export type Slices = Readonly<Record<string, number>>;

/**
 * Drops holds of processes that have been held for their limit, and for a slice from then on: a policy that is wrong
 * slows a process down, it does not starve it. A hold that would reach its limit before the next look ends now.
 * @param limitOf for the process of a hold
 */
export function limitHolds(
  world: World,
  actions: readonly Action[],
  before: Slices,
  limitOf: (action: Action) => HoldLimit | undefined,
): { actions: Action[]; slices: Slices } {
  const heldMs = new Map(
    world.domains.flatMap(({ processes }) =>
      processes.flatMap(({ key, heldMs: held }) => (held === undefined ? [] : [[key, held] as const])),
    ),
  );
  const slices: Record<string, number> = {};
  for (const [key, end] of Object.entries(before)) if (end > world.nowMs) slices[key] = end;
  const kept = actions.filter((action) => {
    if (action.type !== 'hold') return true;
    const limit = limitOf(action);
    if (limit === undefined) return true;
    const held = heldMs.get(action.process);
    // The slice begins when it goes on, which takes a moment.
    const due = held !== undefined && (held + world.elapsedMs > limit.maxHoldMs || action.process in slices);
    if (due) slices[action.process] = world.nowMs + limit.sliceMs;
    return slices[action.process] === undefined;
  });
  return { actions: kept, slices };
}
