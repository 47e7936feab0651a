import { DomschedError } from '../error.ts';
import { printable } from '../guest/text.ts';
import { connectAll } from '../hypervisor/connect.ts';
import type { Domain, DomainIdentity } from '../hypervisor/types.ts';
import type { HeldRecord } from '../surgeon/journal.ts';
import { Journals } from '../surgeon/journaled-surgeon.ts';
import { hasMachineEnded, livingMachine } from '../surgeon/machine-ended.ts';
import type { OperateOptions } from '../surgeon/surgeon.ts';
import { search, WATCHED_ONLY } from '../watch/attached-domain.ts';
import { openDomain } from '../watch/choose.ts';
import { DomainEdits } from '../watch/domain-edits.ts';
import { DomainShareKeeper } from '../watch/domain-share.ts';
import { editAnswer, failureOf, foundHeld, limitsOf } from './answers.ts';
import type { EditAnswer, ReleaseAllAnswer } from './control.ts';
import { whileAttached } from './local-edits.ts';
import type { Options } from './schema.ts';

/** Code of domains we cannot look into in this way: other systems, one that boots, memory in several nodes. */
const NOT_SEEN = 'kernel-unidentified';

/** A command answers with what it did, and has no log. */
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
const CONTEXT = { now: () => performance.now(), techniques: undefined };

/** Whether a machine of a record is this one; it may be reached in another way than before. */
function isProcessOf(machine: HeldRecord['machine'], { pid, started }: DomainIdentity): boolean {
  return machine !== undefined && machine.pid === pid && machine.started === started;
}

/**
 * Puts back everything in the journals. A domain that fails does not keep the others from being put back.
 * @param connect `--connect` values; if there are none, the places that the records name
 * @param served ids of domains that a daemon puts back; undefined without a daemon
 */
export async function releaseAll(
  connect: readonly string[],
  options: Options<'releaseAll'>,
  served?: ReadonlySet<string>,
): Promise<ReleaseAllAnswer> {
  const journals = new Journals();
  const holds = await journals.held.list();
  const records = [...holds, ...(await journals.changes.list())];
  const domains = new Map<string, { name: string; connection: string }>(
    records.map(({ domain, name, connection }) => [domain, { name, connection }]),
  );
  const released: EditAnswer[] = [];
  const failures: ReleaseAllAnswer['failures'][number][] = [];
  const notes: string[] = [];
  // Processes held elsewhere, before a migration or a restart, are in no journal of ours, so look into the guests. A
  // daemon has looked into its own, which only it can reach.
  if (served === undefined) {
    await using hosts = await connectAll(connect);
    for (const { listing } of await hosts.list()) {
      const { id, name, connection } = listing.identity;
      if (domains.has(id) || holds.some(({ machine }) => isProcessOf(machine, listing.identity))) continue;
      if (!('error' in listing)) domains.set(id, { name, connection });
      // If nobody listens and nothing is recorded, there is no machine.
      else if (!['ECONNREFUSED', 'ENOENT'].includes(String(listing.error.details.errno)))
        failures.push(failureOf(name, listing.error));
    }
  }
  for (const [id, { name, connection }] of domains) {
    if (served?.has(id)) continue;
    try {
      const places = connect.length > 0 ? connect : [connection];
      released.push(...(await putBack(id, places, limitsOf(options), journals, notes)));
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      const own = records.filter(({ domain }) => domain === id);
      // Nothing is held where edits are impossible and we have no record.
      if (own.length === 0 && WATCHED_ONLY.has(error.code)) continue;
      // Nothing could have been held in this way, and it is no failure if another way could look deeper.
      if (own.length === 0 && error.code === NOT_SEEN) {
        notes.push(
          `${printable(name)}: no record tells of holds, and it cannot be looked into: ${error.message}`,
        );
        continue;
      }
      const held = holds.filter(({ domain }) => domain === id);
      const living = livingMachine(own);
      const ended = hasMachineEnded(own, error);
      if (ended) await forget(id, journals);
      const kept = living && `; process ${living.pid} of it still runs, so what we wrote down of it is kept`;
      const where = ended || error.code === 'domain-gone' ? heldThere(held) : '';
      const message = `${error.message}${kept ?? ''}${where}`;
      // A machine that ended took its held processes along; one that was migrated or saved still holds them.
      const nobody = ended && held.length === 0;
      failures.push({ domain: name, code: error.code, message, ...(nobody && { ended: true as const }) });
    }
  }
  return { released, failures, notes };
}

/** Puts back all journal entries of one domain: holds, nice values, share. @throws DomschedError the first failure */
async function putBack(
  id: string,
  connect: readonly string[],
  { limitMs }: OperateOptions,
  journals: Journals,
  notes: string[],
): Promise<EditAnswer[]> {
  await using hosts = await connectAll(connect);
  await using domain = await openDomain(hosts, id);
  const { name } = domain.identity;
  const tried = await whileAttached(domain, journals, async (attached) => {
    for (const record of await search(attached, CONTEXT, SILENT)) notes.push(foundHeld(name, record));
    const context = { ...CONTEXT, journals };
    const edits = new DomainEdits({ id, context, log: SILENT, isCurrent: () => true, onLost() {} });
    return edits.putBack(attached, limitMs);
  });
  await shareBack(domain, journals);
  for (const { error } of tried) if (error !== undefined) throw error;
  return tried.flatMap(({ process, operation }) =>
    operation === undefined ? [] : [editAnswer(name, process, operation)],
  );
}

async function shareBack(domain: Domain, journals: Journals): Promise<void> {
  if (domain.scheduler === undefined) return;
  const share = await DomainShareKeeper.open(domain.scheduler, journals.changes, domain.identity);
  for (const kind of share.ours) await share.back(kind);
}

function heldThere(held: readonly HeldRecord[]): string {
  if (held.length === 0) return '';
  const who = held.map(({ pid, comm }) => `${pid} (${comm})`).join(', ');
  return `; ${who} was held there: if it was migrated or saved, run domsched release --all where it runs next`;
}

/** Drops the records of a machine that ended, where nothing is left to put back. */
async function forget(id: string, journals: Journals): Promise<void> {
  for (const records of [journals.held, journals.changes] as const)
    for (const record of await records.list())
      if (record.domain === id) await records.remove(record as never);
}
