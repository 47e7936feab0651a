import path from 'node:path';
import { EditLog, type EditRecords, type Recovery } from '../edit/log.ts';
import { DomschedError } from '../error.ts';
import { bootMark } from '../guest/boot-mark.ts';
import { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import type { Domain } from '../hypervisor/types.ts';
import { JournalHealth } from '../journal-health.ts';
import type { KnownKernel } from '../layout/registry.ts';
import { runtimeDirectory } from '../runtime-directory.ts';
import { holderFor } from './holder-for.ts';
import { ChangeJournal, type ChangeRecord, type HeldRecord, isOfDomain, Journal } from './journal.ts';
import type { RecordStore } from './records.ts';
import { isOfExiting } from './refusal.ts';
import { type OperateOptions, type Operation, type ProcessKey, Surgeon } from './surgeon.ts';

/** The places where we record what we do to guests. */
export class Journals {
  readonly held: RecordStore<HeldRecord>;
  readonly changes: RecordStore<ChangeRecord>;
  readonly edits: EditRecords;
  readonly directory: string;
  readonly health = new JournalHealth();

  constructor(directory = runtimeDirectory()) {
    this.directory = directory;
    this.held = new Journal(path.join(directory, 'held'), this.health);
    this.changes = new ChangeJournal(path.join(directory, 'changed'), this.health);
    this.edits = new EditLog(path.join(directory, 'edits'), this.health);
  }
}

type NiceRecord = Extract<ChangeRecord, { kind: 'nice' }>;

/** Who wants a hold, and why. */
export type Wish = Pick<HeldRecord, 'policy' | 'reason'>;

/** A record of another boot is known for what it is, by whoever reads it next. */
const UNREMOVED = () => undefined;

const FOUND: Wish = { reason: 'found held in the guest; no record tells by whom' };

/** A surgeon that records each hold and nice value before the edit and deletes the record afterwards. */
export class JournaledSurgeon {
  readonly guest: Guest;
  readonly surgeon: Surgeon;
  /** This boot of the guest. */
  readonly boot: string;
  /** What opening the domain found and repaired. */
  readonly recovery: Recovery;
  readonly #journals: Journals;
  /** Records of this boot, by process. */
  readonly #held = new Map<string, HeldRecord>();
  readonly #niced = new Map<string, NiceRecord>();

  private constructor(guest: Guest, surgeon: Surgeon, boot: string, recovery: Recovery, journals: Journals) {
    this.guest = guest;
    this.surgeon = surgeon;
    this.boot = boot;
    this.recovery = recovery;
    this.#journals = journals;
  }

  /**
   * Repairs a domain that was left in the middle of an edit, identifies its kernel and finds its holds. Deletes records
   * of ended processes and of other boots.
   * @throws DomschedError what {@link EditRecords.recover}, {@link Guest.attach} and {@link holderFor} throw
   */
  static async open(
    domain: Domain,
    known: readonly KnownKernel[],
    journals: Journals,
  ): Promise<JournaledSurgeon> {
    requireCapabilities(domain, 'pause', 'writeFrames');
    const recovery = await journals.edits.recover(domain);
    const guest = await Guest.attach(domain, known);
    try {
      const { processes } = await guest.take({ withoutQueues: true });
      const init = processes.find(({ pid }) => pid === 1);
      const boot = bootMark(guest, init);
      const surgeon = new Surgeon(domain, guest, holderFor(guest), journals.edits);
      const opened = new JournaledSurgeon(guest, surgeon, boot, recovery, journals);
      await opened.#takeOver(processes);
      return opened;
    } catch (error) {
      guest.detach();
      throw error;
    }
  }

  /** The holds in the journal. */
  held(): readonly HeldRecord[] {
    return [...this.#held.values()];
  }

  heldRecord(key: ProcessKey): HeldRecord | undefined {
    return this.#held.get(nameOf(key));
  }

  /**
   * Searches the guest itself for held processes and records those without a record: held by another host before a
   * migration, or before `execve()` gave the process another `task_struct`. A record under another id of this domain
   * provides the reason.
   * @param wish owner and reason to record, if known
   * @returns the new records
   * @throws DomschedError as {@link Surgeon.search}
   */
  async search(wish: Wish = FOUND): Promise<HeldRecord[]> {
    const found = await this.surgeon.search();
    const added: HeldRecord[] = [];
    const unknown = found.filter((candidate) => this.heldRecord(candidate) === undefined);
    const { identity } = this.guest.domain;
    const elsewhere =
      unknown.length === 0
        ? []
        : (await this.#journals.held.list()).filter((record) => isOfDomain(record, identity));
    for (const process of unknown) {
      const other = elsewhere.find((candidate) => isRecordOf(candidate, process));
      const { policy, reason } = other ?? wish;
      const record = this.#record(process, { policy, reason }, other?.since);
      added.push(record);
      // The guest itself shows this hold, so a record that cannot be written is no loss.
      await this.#add(record).catch(() => this.#held.set(nameOfRecord(record), record));
      if (other !== undefined) await this.#journals.held.remove(other);
    }
    return added;
  }

  /** Whether any process has another nice value from us. */
  get niced(): boolean {
    return this.#niced.size > 0;
  }

  /** The record of {@link setNice}, with the nice value from before. */
  niceRecord(key: ProcessKey): NiceRecord | undefined {
    // Asked for every process at every tick.
    return this.#niced.size === 0 ? undefined : this.#niced.get(nameOf(key));
  }

  /** @throws DomschedError as {@link Surgeon.hold}; `journal-failed`, and then nothing is held */
  async hold(process: Process, options: OperateOptions, wish: Wish = {}): Promise<Operation> {
    const before = this.heldRecord(process);
    const record = this.#record(process, wish, before?.since);
    try {
      const operation = await this.surgeon.hold(process, { ...options, journal: () => this.#add(record) });
      // It was already held, so no edit was made and none recorded.
      if (operation.outcome === 'unchanged' && before === undefined) await this.#add(record);
      return operation;
    } catch (error) {
      // An earlier hold is still in place unless undoing this one released everything.
      const free = before !== undefined ? isUndone(error) : !mayBeHeld(error);
      if (free) await this.#remove(record);
      throw error;
    }
  }

  /** @throws DomschedError as {@link Surgeon.release} */
  async release(key: ProcessKey, options: OperateOptions): Promise<Operation> {
    const operation = await this.surgeon.release(key, options).catch(async (error: unknown) => {
      if (hasEnded(error)) await this.forget(key);
      throw error;
    });
    if (!options.dryRun) await this.#forgetHeld(key);
    return operation;
  }

  /** @throws DomschedError as {@link Surgeon.renice} */
  async renice(process: Process, nice: number, options: OperateOptions): Promise<Operation> {
    // Some kernels' processes are held for the edit; an earlier hold must stay in the journal.
    if (this.heldRecord(process) !== undefined) return this.surgeon.renice(process, nice, options);
    const record = this.#record(process, {});
    try {
      const journal = () => this.#add(record);
      const operation = await this.surgeon.renice(process, nice, { ...options, journal });
      await this.#remove(record);
      return operation;
    } catch (error) {
      if (!mayBeHeld(error)) await this.#remove(record);
      throw error;
    }
  }

  /** Needs no hold and so no record. @throws DomschedError as {@link Surgeon.reniceGroup} */
  reniceGroup(process: Process, nice: number, options: OperateOptions): Promise<Operation> {
    return this.surgeon.reniceGroup(process, nice, options);
  }

  /**
   * Like {@link renice}, but records the earlier value for {@link niceBack}.
   * @throws DomschedError as {@link renice}; `journal-failed`, and then nothing is changed
   */
  async setNice(
    process: Process,
    nice: number,
    options: OperateOptions,
    wish: Wish = {},
  ): Promise<Operation> {
    const earlier = this.niceRecord(process);
    const before = earlier?.before ?? process.nice;
    const record: NiceRecord = { ...this.#record(process, wish), kind: 'nice', before, set: nice };
    await this.#journals.changes.add(record);
    this.#niced.set(nameOf(process), record);
    try {
      return await this.renice(process, nice, options);
    } catch (error) {
      // Nothing was changed that there would be anything to put back of.
      if (earlier === undefined && isUnwritten(error)) await this.#forgetNiced(process);
      throw error;
    }
  }

  /**
   * Restores the earlier nice value unless somebody else changed it since, or the process is exiting.
   * @returns undefined if there was nothing to do
   */
  async niceBack(process: Process, options: OperateOptions): Promise<Operation | undefined> {
    const record = this.niceRecord(process);
    if (record === undefined) return undefined;
    const operation =
      process.nice === record.set
        ? await this.renice(process, record.before, options).catch((error: unknown) => {
            if (isOfExiting(error)) return undefined;
            throw error;
          })
        : undefined;
    await this.#journals.changes.remove(record);
    this.#niced.delete(nameOf(process));
    return operation;
  }

  /** Deletes the records of a process that no longer exists. */
  async forget(key: ProcessKey): Promise<void> {
    await this.#forgetHeld(key);
    await this.#forgetNiced(key);
  }

  async #forgetNiced(key: ProcessKey): Promise<void> {
    const niced = this.niceRecord(key);
    if (niced === undefined) return;
    await this.#journals.changes.remove(niced);
    this.#niced.delete(nameOf(key));
  }

  async #forgetHeld(key: ProcessKey): Promise<void> {
    const held = this.heldRecord(key);
    if (held !== undefined) await this.#remove(held);
  }

  detach(): void {
    this.guest.detach();
  }

  async #takeOver(processes: readonly Process[]): Promise<void> {
    const { id } = this.guest.domain.identity;
    const present = new Set(processes.map(nameOf));
    const isOurs = (record: HeldRecord) =>
      record.buildId === this.guest.kernel.buildId &&
      (record.boot === undefined || record.boot === this.boot) &&
      present.has(nameOfRecord(record));
    for (const record of await this.#journals.held.list()) {
      if (record.domain !== id) continue;
      if (isOurs(record)) this.#held.set(nameOfRecord(record), record);
      else await this.#journals.held.remove(record).catch(UNREMOVED);
    }
    for (const record of await this.#journals.changes.list()) {
      if (record.kind !== 'nice' || record.domain !== id) continue;
      if (isOurs(record)) this.#niced.set(nameOfRecord(record), record);
      else await this.#journals.changes.remove(record).catch(UNREMOVED);
    }
  }

  #record(process: Process, wish: Wish, since = new Date().toISOString()): HeldRecord {
    const { identity } = this.guest.domain;
    const { pid, started } = identity;
    return {
      connection: identity.connection,
      domain: identity.id,
      name: identity.name,
      buildId: this.guest.kernel.buildId,
      pid: process.tgid,
      comm: process.comm,
      address: `0x${process.address.toString(16)}`,
      startTimeNs: process.startTimeNs,
      since,
      boot: this.boot,
      ...(pid !== undefined && started !== undefined && { machine: { pid, started } }),
      ...wish,
    };
  }

  async #add(record: HeldRecord): Promise<void> {
    await this.#journals.held.add(record);
    this.#held.set(nameOfRecord(record), record);
  }

  async #remove(record: HeldRecord): Promise<void> {
    await this.#journals.held.remove(record);
    this.#held.delete(nameOfRecord(record));
  }
}

function nameOf({ pid, address, startTimeNs }: ProcessKey): string {
  return `${pid} 0x${address.toString(16)} ${startTimeNs}`;
}

function nameOfRecord({ pid, address, startTimeNs }: HeldRecord): string {
  return `${pid} ${address} ${startTimeNs}`;
}

/** Whether a record is of exactly this process. */
export function isRecordOf(record: HeldRecord, key: ProcessKey): boolean {
  return nameOfRecord(record) === nameOf(key);
}

function isUnwritten(error: unknown): boolean {
  return error instanceof DomschedError && error.code === 'journal-failed';
}

function isUndone(error: unknown): boolean {
  return error instanceof DomschedError && error.details.undone === true;
}

/** A failed hold that could not be undone: only its record leads back to it. */
function mayBeHeld(error: unknown): boolean {
  if (!(error instanceof DomschedError)) return true;
  return error.details.undone === false || error.details.restored === false;
}

function hasEnded(error: unknown): boolean {
  return error instanceof DomschedError && error.code === 'process-not-found';
}
