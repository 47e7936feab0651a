import type { Constants } from '../code/prove.ts';
import { Draft } from '../edit/draft.ts';
import { wordsOf } from '../edit/member.ts';
import { PAUSE_ENDS } from '../edit/write-words.ts';
import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { hasMember, hasO1Queues } from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import type { SymbolName } from '../members/symbols.ts';
import { advance, guestVirtual } from '../memory/address.ts';
import { fairQueuesRefusal, hasGroups, spliceRefusal } from '../technique/fair/members.ts';
import { HALF_LIFE, peltRefusal } from '../technique/fair/pelt.ts';
import { Shares, type SharesGuest, sharesMembers, sharesRefusal } from '../technique/fair/shares.ts';
import { o1Members } from '../technique/o1/members.ts';
import { noTrap, noWorkHome } from '../technique/park/members.ts';
import { typesRefusal } from '../technique/park/proof.ts';
import { NEEDED, NEEDED_BY_O1, o1Bits } from '../technique/proved-bits.ts';
import type { Technique } from '../technique/step.ts';
import { LOWEST_NICE, scaleRefusal } from '../technique/weights.ts';
import { FairHolder, fairGuest, tickNsec } from './fair-holder.ts';
import type { Holder } from './holder.ts';
import { noneOf } from './none-of.ts';
import { O1Holder } from './o1-holder.ts';
import { ParkHolder, parkGuest } from './park-holder.ts';
import { constantsOf } from './proved-constants.ts';
import { checkListing, WakeHolder, wakeGuest } from './wake-holder.ts';

/**
 * Chooses the way to hold threads of a guest: its structures must have the members, and a pause of its domain must
 * suffice.
 * @param proved constants from the guest's code, if already known
 * @throws DomschedError `refused` for a scheduler that cannot be edited yet; `layout-absent-member`
 */
export function holderFor(guest: Guest, proved?: Constants): Holder {
  const holder = kernelHolder(guest, proved);
  const { techniques, refused } = holder;
  const { name } = guest.domain.identity;
  const lacks = (technique: Technique): string | undefined => {
    if (guest.domain.pause?.endsWithUs && technique !== 'park') return `the guest ${PAUSE_ENDS}`;
    if (guest.domain.registers === undefined && holder.needsRegisters?.([technique]))
      return 'the registers of its CPUs cannot be read; give it a QMP socket of ours';
    return undefined;
  };
  const others = techniques.filter((technique) => lacks(technique) !== undefined);
  if (others.length === 0) return holder;
  if (others.length === techniques.length)
    throw new DomschedError('refused', `${name}: ${lacks(techniques[0]!)}; nothing was changed`, {
      domain: name,
    });
  return Object.assign(holder, {
    techniques: techniques.filter((technique) => !others.includes(technique)),
    refused: new Map([
      ...(refused ?? []),
      ...others.map((technique) => [technique, lacks(technique)!] as const),
    ]),
  });
}

function kernelHolder(guest: Guest, proved?: Constants): Holder {
  const { layout, queuesUnknown } = guest;
  if (queuesUnknown === undefined && hasO1Queues(layout)) {
    const members = o1Members(layout);
    const constants = proved ?? constantsOf(guest, NEEDED_BY_O1);
    checkListing(layout.kernel, constants, ['PF_EXITING']);
    return new O1Holder({
      members,
      bits: o1Bits(constants),
      queues: guest.cpus.map((cpu) => ({ cpu: cpu.cpu, address: guest.percpu('runqueues', cpu) })),
      hz: members.task_struct.load_weight === undefined ? null : ticksPerSecond(guest),
    });
  }
  const types = forgedCallRefusal(guest);
  const untrapped = noTrap(layout) ?? types ?? noWorkHome(layout);
  if (untrapped === null) return parkingHolder(guest, proved ?? constantsOf(guest));
  return queueHolder(guest, { park: untrapped, call: types }, proved);
}

/** Why this kernel, by its code, makes no calls that its compiler did not see; null where nothing says that it does not. */
function forgedCallRefusal({ layout, kernel, space }: Guest): string | null {
  const address = layout.symbol('process_timeout');
  return address === undefined ? null : typesRefusal(new Draft(space), guestVirtual(address + kernel.slide));
}

/** Where threads can be parked: if splice and state cannot be used, the reason counts for both. */
function parkingHolder(guest: Guest, constants: Constants): Holder {
  const { wayOut } = constants;
  const reason = fairRefusal(guest, constants);
  const shares = sharesOf(guest);
  if (reason === null && typeof wayOut !== 'string') {
    const park = new ParkHolder(parkGuest(guest, constants));
    return new FairHolder(
      fairGuest(guest, constants, wayOut),
      park,
      shares,
      named({ splice: whyNoSplice(guest, constants), state: whyNoState(guest, constants) }),
    );
  }
  return new ParkHolder(parkGuest(guest, constants), {
    refused: named({ splice: reason, state: reason }),
    ...(typeof shares === 'string' ? { sharesRefused: shares } : { shares }),
  });
}

/**
 * Where threads cannot be parked, splice and state stand by themselves; where the guest cannot be made to wake a thread
 * either, splice alone.
 * @param park why not
 * @param call why the guest makes no call for us, or null
 * @throws DomschedError `refused` where neither can be used
 */
function queueHolder(
  guest: Guest,
  { park, call }: { readonly park: string; readonly call: string | null },
  proved?: Constants,
): Holder {
  const { kernel } = guest.layout;
  const none = (splice: string, state: string) =>
    new DomschedError(
      'refused',
      `${kernel.release}: processes of this guest can be listed, but not held: ${noneOf({ park, splice, state })}${why(guest.queuesUnknown)}; nothing was changed`,
      { release: kernel.release, queuesUnknown: guest.queuesUnknown },
    );
  // A kernel of another shape is told as that before any of its code is read.
  const shape = fairQueuesRefusal(guest.layout);
  if (shape !== null) throw none(shape, shape);
  const constants = proved ?? constantsOf(guest, NEEDED.splice);
  const { wayOut } = constants;
  const reason = fairRefusal(guest, constants);
  if (reason !== null || typeof wayOut === 'string') throw none(reason!, reason!);
  const reasons = { splice: whyNoSplice(guest, constants), state: call ?? whyNoState(guest, constants) };
  if (reasons.splice !== null && reasons.state !== null) throw none(reasons.splice, reasons.state);
  return new FairHolder(
    fairGuest(guest, constants, wayOut),
    new WakeHolder({ ...wakeGuest(guest, constants), makesCalls: call === null }),
    sharesOf(guest),
    named({ park, ...reasons }),
  );
}

/**
 * Why neither splice nor state can be used, or null. A queue with unproved constants is not edited; parking a thread needs
 * no queue.
 */
function fairRefusal({ layout }: Guest, constants: Constants): string | null {
  const { wayOut } = constants;
  return (
    fairQueuesRefusal(layout) ??
    constants.missing(NEEDED.splice) ??
    (typeof wayOut === 'string'
      ? `how its stacks look on the way to user mode is not proved: ${wayOut}`
      : null) ??
    (hasGroups(layout) ? sharesRefusal(layout) : null)
  );
}

/** Weights of groups, or why they are left alone. */
function sharesOf(guest: Guest): Shares | string {
  return sharesRefusal(guest.layout) ?? new Shares(sharesGuest(guest));
}

/**
 * Why threads cannot be held by `state`, or null. Queues of a new shape are no reason, because the guest's own
 * `schedule()` takes the thread out of its queue.
 */
function whyNoState({ queueSlots, queuesUnknown }: Guest, constants: Constants): string | null {
  const missing = constants.missing(NEEDED.state);
  if (missing !== null || queuesUnknown === undefined || queueSlots.unknown !== undefined) return missing;
  // The shape is known, but the queues never hold what they count: somebody else schedules, or the layout is wrong.
  return notRead(queuesUnknown);
}

/** Why threads cannot be held by `splice`, or null. */
function whyNoSplice(guest: Guest, constants: Constants): string | null {
  const { layout, queuesUnknown } = guest;
  const shape = spliceRefusal(layout);
  if (shape !== null) return shape;
  if (queuesUnknown !== undefined) return notRead(queuesUnknown);
  const needsTick = hasMember(layout, 'sched_entity', 'deadline');
  if (needsTick && tickNsec(guest, constants) === null) return constants.missing(['TICK_NSEC']);
  return constants.missing(['PELT_MIN_DIVIDER']) ?? peltOf(guest, constants) ?? scaleOf(guest);
}

function scaleOf({ layout, kernel, space }: Guest): string | null {
  const at = (name: SymbolName) => guestVirtual(layout.requireSymbol(name) + kernel.slide);
  const normal = space.readU32(advance(at('sched_prio_to_weight'), 4 * -LOWEST_NICE));
  const known = hasGroups(layout)
    ? advance(at('root_task_group'), sharesMembers(layout).task_group.shares.offset)
    : advance(at('init_task'), firstTaskWeight(layout));
  return scaleRefusal(BigInt(normal), space.readU64(known));
}

/** The place of the weight in `init_task`, whose nice value of 0 nobody can change. */
function firstTaskWeight(layout: LayoutView): number {
  const { se } = wordsOf(layout, 'task_struct', ['se']);
  return wordsOf(layout, 'sched_entity', ['weight'], se).weight.offset;
}

function peltOf(guest: Guest, constants: Constants): string | null {
  const table = guest.symbol('runnable_avg_yN_inv');
  const factors =
    table === undefined
      ? undefined
      : Array.from({ length: HALF_LIFE }, (_, n) => BigInt(guest.space.readU32(advance(table, 4 * n))));
  return peltRefusal(constants.get('PELT_MIN_DIVIDER'), factors);
}

function named(reasons: Readonly<Partial<Record<Technique, string | null>>>): ReadonlyMap<Technique, string> {
  const all = Object.entries(reasons) as [Technique, string | null][];
  return new Map(all.flatMap(([technique, reason]) => (reason === null ? [] : [[technique, reason]])));
}

/** @throws DomschedError `layout-absent-member` where {@link sharesRefusal} has a reason */
function sharesGuest(guest: Guest): SharesGuest {
  const symbol = (name: SymbolName) => guestVirtual(guest.layout.requireSymbol(name) + guest.kernel.slide);
  return {
    members: sharesMembers(guest.layout),
    rootTaskGroup: symbol('root_task_group'),
    prioToWeight: symbol('sched_prio_to_weight'),
  };
}

/** What is unknown about the run queues, for messages. */
export function why(queuesUnknown: string | undefined): string {
  return queuesUnknown === undefined ? '' : ` (${notRead(queuesUnknown)})`;
}

function notRead(queuesUnknown: string): string {
  return `its run queues are not read: ${queuesUnknown}`;
}

/** HZ is a macro; `tick_nsec` is derived from it (kernel/timer.c, TICK_NSEC). Null if the layout has no such symbol. */
function ticksPerSecond(guest: Guest): number | null {
  const address = guest.symbol('tick_nsec');
  if (address === undefined) return null;
  const tick = guest.space.readU64(address);
  return tick === 0n ? null : Math.round(1e9 / Number(tick));
}
