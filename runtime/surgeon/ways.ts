import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import type { Domain } from '../hypervisor/types.ts';
import type { Technique } from '../technique/step.ts';
import type { Holder } from './holder.ts';
import { holderFor } from './holder-for.ts';

/** How processes of a guest can be held, for people who ask before they hold one. */
export interface Ways {
  readonly techniques: readonly Technique[];
  /** Why not by the others; `all` where there is no way at all. */
  readonly refused: Readonly<Partial<Record<Technique | 'all', string>>>;
}

export function waysOf({ techniques, refused }: Pick<Holder, 'techniques' | 'refused'>): Ways {
  return { techniques, refused: Object.fromEntries(refused ?? []) };
}

/** What is in the way of holding anybody. */
export function noWay({ message }: DomschedError): Ways {
  return { techniques: [], refused: { all: message } };
}

/** As an edit would find it. Nothing is changed and nobody paused. */
export function findWays(domain: Domain, guest: Guest): Ways {
  try {
    requireCapabilities(domain, 'pause', 'writeFrames');
    return waysOf(holderFor(guest));
  } catch (error) {
    if (error instanceof DomschedError) return noWay(error);
    throw error;
  }
}
