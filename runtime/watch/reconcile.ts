import type { NamedAction } from '../policy/combine.ts';
import type { ProcessView } from '../policy/world.ts';

/** What we have done to a process and must maintain or undo. */
export interface Standing {
  readonly process: ProcessView;
  readonly held: boolean;
  /** The hold seems to have come loose and must be renewed. */
  readonly loose?: boolean;
  /** The nice value that we set, and the one from before. */
  readonly niced?: { readonly before: number; readonly set: number } | undefined;
}

/** One edit to make. */
export type Order =
  | {
      readonly action: 'hold' | 'release';
      readonly key: string;
      readonly policy: string;
      readonly reason: string;
    }
  | {
      readonly action: 'nice';
      readonly key: string;
      /** `back` restores the earlier value. */
      readonly nice: number | 'back';
      readonly policy: string;
      readonly reason: string;
    };

/** Owner and reason of an edit that takes something back. */
export const NOBODY = { policy: '-', reason: 'no policy asks for it any longer' } as const;

/**
 * The edits that lead from the present state of one domain to the wanted one: releases first, then nice values, then
 * holds.
 */
export function reconcile(standings: readonly Standing[], wanted: readonly NamedAction[]): Order[] {
  const holds = new Map<string, NamedAction>();
  const runs = new Map<string, NamedAction>();
  const nices = new Map<string, NamedAction & { type: 'nice' }>();
  for (const action of wanted) {
    if (action.type === 'hold') holds.set(action.process, action);
    if (action.type === 'run') runs.set(action.process, action);
    if (action.type === 'nice') nices.set(action.process, action);
  }
  const releases: Order[] = [];
  const renices: Order[] = [];
  const stops: Order[] = [];
  for (const { process, held, loose, niced } of standings) {
    const { key, nice } = process;
    const hold = holds.get(key);
    const run = runs.get(key);
    if (held && hold === undefined)
      releases.push({ action: 'release', key, ...(run === undefined ? NOBODY : why(run)) });
    if (hold !== undefined && (!held || loose)) stops.push({ action: 'hold', key, ...why(hold) });
    const wish = nices.get(key);
    if (wish === undefined) {
      if (niced !== undefined) renices.push({ action: 'nice', key, nice: 'back', ...NOBODY });
      // Somebody in the guest may set another value; it stays until we want a different one.
    } else if (wish.nice !== (niced?.set ?? nice)) {
      renices.push({ action: 'nice', key, nice: wish.nice, ...why(wish) });
    }
  }
  return [...releases, ...renices, ...stops];
}

function why({ policy, reason }: NamedAction): { policy: string; reason: string } {
  return { policy, reason };
}
