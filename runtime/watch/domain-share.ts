import type { DomainIdentity, DomainScheduler, DomainShare } from '../hypervisor/types.ts';
import type { ChangeRecord } from '../surgeon/journal.ts';
import type { RecordStore } from '../surgeon/records.ts';

type ShareRecord = Extract<ChangeRecord, { kind: 'share' }>;
export type ShareKind = 'weight' | 'cap';

/** A domain's weight and cap, with the values from before our changes. */
export class DomainShareKeeper {
  current: DomainShare;
  readonly #scheduler: DomainScheduler;
  readonly #journal: RecordStore<ChangeRecord>;
  #record: ShareRecord;

  private constructor(
    scheduler: DomainScheduler,
    journal: RecordStore<ChangeRecord>,
    current: DomainShare,
    record: ShareRecord,
  ) {
    this.#scheduler = scheduler;
    this.#journal = journal;
    this.current = current;
    this.#record = record;
  }

  /** Takes over the changes of an earlier daemon. @throws DomschedError what the hypervisor throws */
  static async open(
    scheduler: DomainScheduler,
    journal: RecordStore<ChangeRecord>,
    { id, name, connection, pid }: DomainIdentity,
  ): Promise<DomainShareKeeper> {
    const current = await scheduler.get();
    const fresh: ShareRecord = {
      kind: 'share',
      connection,
      domain: id,
      name,
      hypervisorPid: pid ?? null,
      before: {},
      set: {},
    };
    let record = fresh;
    for (const found of await journal.list()) {
      if (found.kind !== 'share' || found.domain !== id) continue;
      if (found.hypervisorPid === (pid ?? null)) record = found;
      else await journal.remove(found);
    }
    return new DomainShareKeeper(scheduler, journal, current, record);
  }

  /** Whether we set the present value. */
  isSet(kind: ShareKind): boolean {
    return this.#record.set[kind] !== undefined;
  }

  /** Those whose present value we set. */
  get ours(): readonly ShareKind[] {
    return (['weight', 'cap'] as const).filter((kind) => this.isSet(kind));
  }

  wanted(kind: ShareKind): number | undefined {
    return this.#record.set[kind];
  }

  async refresh(): Promise<void> {
    this.current = await this.#scheduler.get();
  }

  /** @throws DomschedError what the hypervisor throws; `journal-failed`, and then nothing is changed */
  async set(kind: ShareKind, value: number): Promise<void> {
    const { before, set } = this.#record;
    const record: ShareRecord = {
      ...this.#record,
      before: { ...before, [kind]: before[kind] ?? this.current[kind] },
      set: { ...set, [kind]: value },
    };
    await this.#journal.add(record);
    this.#record = record;
    this.current = await this.#scheduler.set({ [kind]: value });
  }

  /** Restores the earlier value unless somebody else changed it since. */
  async back(kind: ShareKind): Promise<void> {
    await this.refresh();
    const { [kind]: before, ...otherBefore } = this.#record.before;
    const { [kind]: set, ...otherSet } = this.#record.set;
    if (before !== undefined && this.current[kind] === set) {
      this.current = await this.#scheduler.set({ [kind]: before });
    }
    const record: ShareRecord = { ...this.#record, before: otherBefore, set: otherSet };
    if (Object.keys(otherSet).length === 0) await this.#journal.remove(record);
    else await this.#journal.add(record);
    this.#record = record;
  }
}
