import { everyProcess } from './selector.ts';
import { type Action, type World, wholeMs } from './world.ts';

export interface HoldLimit {
  /** A process is held without a break for at most this long, in ms. */
  readonly maxHoldMs: number;
  /** How long it then runs before it may be held again, in ms. */
  readonly sliceMs: number;
}

/** End of each running slice, by process. */
export type Slices = Readonly<Record<string, number>>;

/**
 * Drops holds that have reached their limit, and for one slice afterwards: a wrong policy slows a process down but does
 * not starve it. A hold that would reach its limit before the next look ends now.
 * @param limitOf the limit for the process of a hold
 */
export function limitHolds(
  world: World,
  actions: readonly Action[],
  before: Slices,
  limitOf: (action: Action) => HoldLimit | undefined,
): { actions: Action[]; slices: Slices } {
  const heldMs = new Map<string, number>();
  if (actions.some(({ type }) => type === 'hold'))
    for (const { key, heldMs: held } of everyProcess(world.domains))
      if (held !== undefined) heldMs.set(key, held);
  const slices: Record<string, number> = {};
  for (const [key, end] of Object.entries(before)) if (end > world.nowMs) slices[key] = end;
  const kept = actions.filter((action) => {
    if (action.type !== 'hold') return true;
    const limit = limitOf(action);
    if (limit === undefined) return true;
    const held = heldMs.get(action.process);
    // The slice begins when the process continues, which takes a moment.
    const due = held !== undefined && (held + wholeMs(world) > limit.maxHoldMs || action.process in slices);
    if (due) slices[action.process] = world.nowMs + limit.sliceMs;
    return slices[action.process] === undefined;
  });
  return { actions: kept, slices };
}
