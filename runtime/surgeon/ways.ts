import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import type { Domain } from '../hypervisor/types.ts';
import { hasMember } from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import { fairQueuesRefusal, spliceRefusal } from '../technique/fair/members.ts';
import { sharesRefusal } from '../technique/fair/shares.ts';
import { o1Members } from '../technique/o1/members.ts';
import { canPark, parkMembers } from '../technique/park/members.ts';
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

/**
 * What a kernel's structures allow, before anybody has seen a guest of it: there its code has to prove the constants
 * besides, and its memory the layout.
 */
export function waysOfLayout(layout: LayoutView): Ways {
  try {
    if (hasMember(layout, 'rq', 'active') && hasMember(layout, 'prio_array', 'queue')) {
      o1Members(layout);
      return { techniques: ['splice', 'state'], refused: { park: 'it has no freezer trap (5.2)' } };
    }
    if (!canPark(layout)) return { techniques: [], refused: { all: 'it has no freezer trap (5.2)' } };
    parkMembers(layout);
  } catch (error) {
    if (error instanceof DomschedError) return noWay(error);
    throw error;
  }
  const fair = fairQueuesRefusal(layout) ?? sharesRefusal(layout);
  const splice = fair ?? spliceRefusal(layout);
  return {
    techniques: ['park', ...(splice ? [] : (['splice'] as const)), ...(fair ? [] : (['state'] as const))],
    refused: { ...(splice ? { splice } : {}), ...(fair ? { state: fair } : {}) },
  };
}

/** Sentences for people: `not by splice: …`. */
export function reasonsAgainst({ refused }: Ways): string[] {
  return Object.entries(refused).map(([technique, reason]) =>
    technique === 'all' ? `cannot be held: ${reason}` : `not by ${technique}: ${reason}`,
  );
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
