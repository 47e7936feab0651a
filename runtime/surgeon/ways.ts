import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import type { Domain } from '../hypervisor/types.ts';
import { hasO1Queues } from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import { fairQueuesRefusal, hasGroups, spliceRefusal } from '../technique/fair/members.ts';
import { sharesRefusal } from '../technique/fair/shares.ts';
import { o1Members } from '../technique/o1/members.ts';
import { noTrap, noWorkHome, parkMembers, wakeMembers } from '../technique/park/members.ts';
import type { Technique } from '../technique/step.ts';
import type { Holder } from './holder.ts';
import { holderFor } from './holder-for.ts';
import { noneOf } from './none-of.ts';

/** How a guest's processes can be held, for people who want to know before they hold one. */
export interface Ways {
  readonly techniques: readonly Technique[];
  /** Why the other techniques are not available; `all` if none is. */
  readonly refused: Readonly<Partial<Record<Technique | 'all', string>>>;
}

/** The ways of a holder in a domain, which may not be edited at all at present. */
export function waysOf(
  domain: Pick<Domain, 'editRefusal'>,
  { techniques, refused }: Pick<Holder, 'techniques' | 'refused'>,
): Ways {
  const refusal = domain.editRefusal?.();
  return refusal ? noWay(refusal) : { techniques, refused: Object.fromEntries(refused ?? []) };
}

/**
 * What a kernel's structures allow before we see a guest of it. There, its code must also prove the constants, and its
 * memory the layout.
 */
export function waysOfLayout(layout: LayoutView): Ways {
  try {
    if (hasO1Queues(layout)) {
      o1Members(layout);
      return { techniques: ['splice', 'state'], refused: { park: noTrap(layout) ?? 'it has O(1) queues' } };
    }
    const park = noTrap(layout) ?? noWorkHome(layout);
    if (park === null) parkMembers(layout);
    const state = fairQueuesRefusal(layout) ?? (hasGroups(layout) ? sharesRefusal(layout) : null);
    const reasons = { park, splice: state ?? spliceRefusal(layout), state };
    if (park !== null && state === null) wakeMembers(layout);
    return waysBut(reasons);
  } catch (error) {
    if (error instanceof DomschedError) return noWay(error);
    throw error;
  }
}

/** All ways but those that have a reason against them. */
function waysBut(reasons: Readonly<Record<Technique, string | null>>): Ways {
  const all = Object.entries(reasons) as [Technique, string | null][];
  const techniques = all.flatMap(([technique, reason]) => (reason === null ? [technique] : []));
  if (techniques.length === 0) return { techniques, refused: { all: noneOf(reasons) } };
  return { techniques, refused: Object.fromEntries(all.filter(([, reason]) => reason !== null)) };
}

/** Sentences for people: `not by splice: …`. */
export function reasonsAgainst({ refused }: Ways): string[] {
  return Object.entries(refused).map(([technique, reason]) =>
    technique === 'all' ? `cannot be held: ${reason}` : `not by ${technique}: ${reason}`,
  );
}

/** Why nothing can be held. */
export function noWay({ message }: DomschedError): Ways {
  return { techniques: [], refused: { all: message } };
}

/** Finds the ways that an edit would find, without changing or pausing anything. */
export function findWays(domain: Domain, guest: Guest): Ways {
  try {
    requireCapabilities(domain, 'pause', 'writeFrames');
    return waysOf(domain, holderFor(guest));
  } catch (error) {
    if (error instanceof DomschedError) return noWay(error);
    throw error;
  }
}
