import type { Logger } from 'pino';
import { DomschedError } from '../error.ts';
import { bootMark } from '../guest/boot-mark.ts';
import { Guest } from '../guest/guest.ts';
import type { LookLimits } from '../guest/look-budget.ts';
import { originOf } from '../guest/origin.ts';
import type { Process } from '../guest/process.ts';
import type { Domain, Host } from '../hypervisor/types.ts';
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

/** Where attaching and editing is logged. */
export type EditLogger = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>;

interface Attachment {
  readonly domain: Domain;
  readonly guest: Guest;
  readonly tracker: Tracker;
  readonly share: DomainShareKeeper | undefined;
  readonly account: HostAccount;
}

/** A domain that we are attached to, and the surgeon that edits its guest. */
export interface EditableDomain extends Attachment {
  readonly surgeon: JournaledSurgeon;
  readonly refusal: undefined;
}

/** A domain that we are attached to. If its guest cannot be edited, `refusal` says why. */
export type AttachedDomain =
  | EditableDomain
  | (Attachment & { readonly surgeon: undefined; readonly refusal: DomschedError });

/** With these errors the guest cannot be edited but can still be watched. */
export const WATCHED_ONLY: ReadonlySet<string> = new Set(['refused', 'capability-missing']);

/**
 * Opens a domain for as long as we are attached to its guest. If we cannot attach, it is closed again.
 * @throws DomschedError as {@link Host.open} and `attaching`
 */
export async function openFor<T>(
  host: Host,
  id: string,
  attaching: (domain: Domain) => Promise<T>,
): Promise<T> {
  const domain = await host.open(id);
  try {
    return await attaching(domain);
  } catch (error) {
    await domain.close().catch(() => undefined);
    throw error;
  }
}

/**
 * Finds out what runs in a domain and repairs what a killed domsched process left there. {@link search} finds its holds.
 * @throws DomschedError as {@link JournaledSurgeon.open}
 */
export async function attach(
  domain: Domain,
  context: Pick<DomainContext, 'known' | 'journals' | 'origins'>,
): Promise<EditableDomain> {
  const surgeon = await JournaledSurgeon.open(domain, await context.known(), context.journals);
  const { guest, boot } = surgeon;
  return { ...attachment(guest, boot, context), surgeon, refusal: undefined };
}

/**
 * Attaches for as long as the daemon runs, and takes over existing holds. Only watches a guest that cannot be edited.
 * @throws DomschedError as {@link attach}, {@link Guest.attach} and {@link DomainShareKeeper.open}
 */
export async function attachOrWatch(
  domain: Domain,
  context: DomainContext,
  log: Logger,
): Promise<AttachedDomain> {
  let attached: EditableDomain;
  try {
    attached = await attach(domain, context);
  } catch (error) {
    if (!(error instanceof DomschedError) || !WATCHED_ONLY.has(error.code)) throw error;
    const guest = await Guest.attach(domain, await context.known());
    return { ...attachment(guest, bootMark(guest), context), surgeon: undefined, refusal: error };
  }
  const { scheduler, identity } = domain;
  const isSettable = scheduler !== undefined && scheduler.readOnly === undefined;
  const share = isSettable
    ? await DomainShareKeeper.open(scheduler, context.journals.changes, identity)
    : undefined;
  await search(attached, context, log);
  return { ...attached, share };
}

function attachment(guest: Guest, boot: string, context: Pick<DomainContext, 'origins'>): Attachment {
  const { domain } = guest;
  const { id, name } = domain.identity;
  const origin = (process: Process) => (context.origins ? originOf(guest, process) : {});
  const tracker = new Tracker({ domain: id, domainName: name, boot, origin });
  return { domain, guest, tracker, share: undefined, account: new HostAccount(domain.hostClock) };
}

/**
 * Searches the guest for processes that are held without a record, and takes over holds made by an earlier daemon, a
 * command or another host: they stay until somebody decides otherwise.
 * @param wish owner and reason to record for a hold without a record, if known
 * @returns records that were missing
 * @throws DomschedError as {@link JournaledSurgeon.search}
 */
export async function search(
  { surgeon, tracker }: EditableDomain,
  { now }: Pick<DomainContext, 'now'>,
  log: EditLogger,
  wish?: Pick<Hold, 'policy' | 'reason'>,
): Promise<readonly HeldRecord[]> {
  const found = await surgeon.search(wish);
  for (const record of surgeon.held()) {
    const key = tracker.keyOf(processOf(record));
    if (tracker.holds.has(key)) continue;
    const hold = holdOf(record, now());
    tracker.holds.set(key, hold);
    log.info({ pid: record.pid, comm: record.comm, key, policy: hold.policy }, 'taken over');
  }
  return found;
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
