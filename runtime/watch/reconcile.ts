import type { NamedAction } from '../policy/combine.ts';
import type { ProcessView } from '../policy/world.ts';

/** What has been done to a process, and is to be kept up or taken back. */
export interface Standing {
  readonly process: ProcessView;
  /** We hold it. */
  readonly held: boolean;
  /** It seems to have got loose: to be held again. */
  readonly loose?: boolean;
  /** We gave it another nice value: the one that it had before, and the one that we gave it. */
  readonly niced?: { readonly before: number; readonly set: number } | undefined;
}

/** One thing to do. */
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
      /** `back`: as it was before. */
      readonly nice: number | 'back';
      readonly policy: string;
      readonly reason: string;
    };

/** Whose wish it is to take something back. */
export const NOBODY = { policy: '-', reason: 'no policy asks for it any longer' } as const;

/**
 * What it takes to get from what is to what is wanted, in one domain: first who may go on, then nice values, then who
 * is to stop.
 */
export function reconcile(standings: readonly Standing[], wanted: readonly NamedAction[]): Order[] {
  const holds = new Map<string, NamedAction>();
  const nices = new Map<string, NamedAction & { type: 'nice' }>();
  for (const action of wanted) {
    if (action.type === 'hold') holds.set(action.process, action);
    if (action.type === 'nice') nices.set(action.process, action);
  }
  const releases: Order[] = [];
  const renices: Order[] = [];
  const stops: Order[] = [];
  for (const { process, held, loose, niced } of standings) {
    const { key, nice } = process;
    const hold = holds.get(key);
    if (held && hold === undefined) releases.push({ action: 'release', key, ...NOBODY });
    if (hold !== undefined && (!held || loose)) stops.push({ action: 'hold', key, ...why(hold) });
    const wish = nices.get(key);
    if (wish === undefined) {
      if (niced !== undefined) renices.push({ action: 'nice', key, nice: 'back', ...NOBODY });
      // Somebody in the guest may set another value: theirs stands until we want another one.
    } else if (wish.nice !== (niced?.set ?? nice)) {
      renices.push({ action: 'nice', key, nice: wish.nice, ...why(wish) });
    }
  }
  return [...releases, ...renices, ...stops];
}

function why({ policy, reason }: NamedAction): { policy: string; reason: string } {
  return { policy, reason };
}
