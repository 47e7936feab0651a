import type { Logger } from 'pino';
import { DomschedError } from '../error.ts';
import { bootMark } from '../guest/boot-mark.ts';
import { Guest } from '../guest/guest.ts';
import type { LookLimits } from '../guest/look-budget.ts';
import { originOf } from '../guest/origin.ts';
import type { Domain } from '../hypervisor/types.ts';
import type { KnownKernel } from '../layout/registry.ts';
import type { DomainView } from '../policy/world.ts';
import type { HeldRecord } from '../surgeon/journal.ts';
import { JournaledSurgeon, type Journals } from '../surgeon/journaled-surgeon.ts';
import type { Technique } from '../technique/step.ts';
import { DomainShareKeeper } from './domain-share.ts';
import { type Hold, holdOf } from './hold.ts';
import { HostAccount } from './host-account.ts';
import type { Lane } from './lane.ts';
import { Tracker } from './tracker.ts';

/** What all watched domains share. */
export interface DomainContext {
  readonly log: Logger;
  readonly journals: Journals;
  /** Monotonic, in ms. */
  readonly now: () => number;
  readonly known: () => Promise<readonly KnownKernel[]>;
  /** Limits how many domains are attached to at once: attaching takes much CPU time. */
  readonly attaching: Lane;
  /** Allowed ways to hold; undefined allows all that a guest supports. */
  techniques: readonly Technique[] | undefined;
  /** The most that one look at a domain may cost. */
  readonly limits: LookLimits;
  /** Whether users, control groups and command lines are read. */
  origins: boolean;
}

/** A domain that we are attached to: its guest, and the surgeon that edits it. */
export interface AttachedDomain {
  readonly domain: Domain;
  readonly guest: Guest;
  /** Undefined if the guest cannot be edited; `refusal` then says why. */
  readonly surgeon: JournaledSurgeon | undefined;
  readonly refusal: DomschedError | undefined;
  readonly share: DomainShareKeeper | undefined;
  readonly tracker: Tracker;
  readonly account: HostAccount;
}

/** With these errors the guest cannot be edited but can still be watched. */
const WATCHED_ONLY: ReadonlySet<string> = new Set(['refused', 'capability-missing']);

/**
 * Finds out what runs in a domain, repairs what a killed domsched process left there, and takes over existing holds.
 * @throws DomschedError what {@link JournaledSurgeon.open} throws, unless the guest can still be watched
 */
export async function attach(
  domain: Domain,
  id: string,
  context: DomainContext,
  log: Logger,
): Promise<AttachedDomain> {
  const known = await context.known();
  const { journals } = context;
  let surgeon: JournaledSurgeon | undefined;
  let refusal: DomschedError | undefined;
  try {
    surgeon = await JournaledSurgeon.open(domain, known, journals);
  } catch (error) {
    if (!(error instanceof DomschedError) || !WATCHED_ONLY.has(error.code)) throw error;
    refusal = error;
  }
  const guest = surgeon?.guest ?? (await Guest.attach(domain, known));
  const { identity } = domain;
  const share =
    surgeon === undefined || domain.scheduler === undefined
      ? undefined
      : await DomainShareKeeper.open(domain.scheduler, journals.changes, identity);
  const tracker = new Tracker({
    domain: id,
    domainName: identity.name,
    boot: surgeon?.boot ?? bootMark(guest),
    origin: (process) => (context.origins ? originOf(guest, process) : {}),
  });
  const account = new HostAccount(domain.hostClock);
  const attached = { domain, guest, surgeon, refusal, share, tracker, account };
  await surgeon?.search();
  takeOver(attached, context, log);
  return attached;
}

/**
 * Searches the guest for processes that are held without a record.
 * @param wish owner and reason to record for such a hold, if known
 * @throws DomschedError as {@link JournaledSurgeon.search}
 */
export async function search(
  attached: AttachedDomain,
  context: DomainContext,
  log: Logger,
  wish?: Pick<Hold, 'policy' | 'reason'>,
): Promise<void> {
  if (attached.surgeon === undefined) return;
  await attached.surgeon.search(wish);
  takeOver(attached, context, log);
}

/**
 * Takes over holds made by an earlier daemon, a command or another host: they stay until somebody decides otherwise.
 */
function takeOver({ surgeon, tracker }: AttachedDomain, { now }: DomainContext, log: Logger): void {
  for (const record of surgeon?.held() ?? []) {
    const key = tracker.keyOf(processOf(record));
    if (tracker.holds.has(key)) continue;
    const hold = holdOf(record, now());
    tracker.holds.set(key, hold);
    log.info({ pid: record.pid, comm: record.comm, key, policy: hold.policy }, 'taken over');
  }
}

/** The domain as policies see it. */
export function viewOf(
  id: string,
  name: string,
  { guest, share, tracker, account }: AttachedDomain,
): DomainView {
  const current = share?.current;
  return {
    id,
    name,
    vcpus: guest.cpus.length,
    ...(current !== undefined && { weight: current.weight, cap: current.cap }),
    ...(account.view !== undefined && { host: account.view }),
    processes: tracker.views(),
  };
}

/** Identifies the process that a record describes. */
export function processOf({ pid, address, startTimeNs }: HeldRecord) {
  return { pid, address: BigInt(address) as never, startTimeNs };
}
