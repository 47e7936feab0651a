import type { Logger } from 'pino';
import { DomschedError } from '../error.ts';
import type { Process } from '../guest/process.ts';
import type { NamedAction } from '../policy/combine.ts';
import type { JournaledSurgeon } from '../surgeon/journaled-surgeon.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import type { TickAction } from '../tick/tick.ts';
import { type AttachedDomain, type DomainContext, processOf, search } from './attached-domain.ts';
import { Backoff } from './backoff.ts';
import { type Hold, holdOf } from './hold.ts';
import { Lane } from './lane.ts';
import type { Left } from './left.ts';
import { NOBODY, type Order, reconcile } from './reconcile.ts';
import { type ShareTask, shareTasks } from './share-tasks.ts';
import { standingsOf } from './standings.ts';
import type { Gone } from './tracker.ts';

/** How long we try an edit that a policy wants, in ms. The next tick may want another one. */
const EDIT_LIMIT_MS = 1_000;
/** The same when everything is put back. */
const RELEASE_LIMIT_MS = 5_000;
const REFRESH_SHARE_MS = 2_000;
/** Backoff key for plans of this guest that took too long; meanwhile no further process of it is held. */
const PLANS = 'plans';
/** With these errors the domain is no longer the one that we attached to. */
const LOST: ReadonlySet<string> = new Set(['domain-gone', 'kernel-unidentified']);

export interface EditsOptions {
  readonly id: string;
  readonly context: DomainContext;
  readonly log: Logger;
  /** Whether the edits are still meant for this domain. */
  readonly isCurrent: (attached: AttachedDomain) => boolean;
  /** Called when the domain turns out to be another one than we attached to. */
  readonly onLost: (attached: AttachedDomain, error: DomschedError) => void;
}

/** Edits one domain, one edit at a time and independent of ticks. Remembers what failed and when to retry. */
export class DomainEdits {
  readonly #options: EditsOptions;
  readonly #log: Logger;
  readonly #lane = new Lane(1);
  readonly #tries = new Backoff();
  /** Guests that an edit may have left half written: policies may not edit them until we attach again. */
  readonly #suspect = new WeakMap<AttachedDomain, DomschedError>();
  #shareMs = -Infinity;
  #actions: TickAction[] = [];

  constructor(options: EditsOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  get busy(): boolean {
    return this.#lane.busy;
  }

  /** Why policies may not edit this guest any more: an edit may be half written. */
  suspicion(attached: AttachedDomain): DomschedError | undefined {
    return this.#suspect.get(attached);
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    return this.#lane.idle();
  }

  /** Runs `work` after the edits under way. */
  run<T>(work: () => Promise<T>): Promise<T> {
    return this.#lane.run(work);
  }

  /** Returns and clears what was tried since the last call. */
  takeActions(): TickAction[] {
    const taken = this.#actions;
    this.#actions = [];
    return taken;
  }

  /**
   * Starts the edits that lead from the present state to the wanted one.
   * @returns a promise that resolves at their end; undefined if there is nothing to do
   */
  adjust(attached: AttachedDomain, wanted: readonly NamedAction[], nowMs: number): Promise<void> | undefined {
    const { surgeon, tracker } = attached;
    if (surgeon === undefined || this.busy || this.#suspect.has(attached)) return undefined;
    const tasks = reconcile(standingsOf(tracker, surgeon), wanted).filter((task) =>
      this.#isDue(attached, task, nowMs),
    );
    const shares = this.#shareTasks(attached, wanted, nowMs);
    if (tasks.length + shares.length === 0) return undefined;
    return this.#lane.run(async () => {
      for (const task of shares) await this.#setShare(attached, task, nowMs);
      for (const task of tasks) {
        if (!this.#options.isCurrent(attached) || this.#suspect.has(attached)) return;
        await this.#perform(attached, task, nowMs);
      }
    });
  }

  /**
   * Puts holds, nice values and share back. Run it in the lane. Failures are logged and their records kept.
   * @returns the processes that the guest still holds
   */
  async restore(attached: AttachedDomain): Promise<Left[]> {
    const { guest, surgeon, share, tracker } = attached;
    const { now } = this.#options.context;
    if (surgeon === undefined) return [];
    await search(attached, this.#options.context, this.#log);
    // Before the first look, holds that were taken over are known to the journal only.
    const { processes } = await guest.take({ withoutQueues: true });
    for (const { process } of tracker.update(processes, now())) await surgeon.forget(process);
    for (const task of reconcile(standingsOf(tracker, surgeon), []))
      await this.#perform(attached, task, now(), RELEASE_LIMIT_MS);
    for (const kind of ['weight', 'cap'] as const)
      if (share?.isSet(kind)) await this.#setShare(attached, { kind, value: 'back', ...NOBODY }, now());
    // The guest itself decides what is still held, not our records.
    const held = await surgeon.surgeon.search();
    return held.map(({ pid, comm }) => ({ domain: this.#options.id, what: 'held', pid, comm }));
  }

  /** Holds a process and records why. @throws DomschedError as {@link JournaledSurgeon.hold} */
  async hold(
    attached: AttachedDomain | undefined,
    key: string,
    wish: Pick<Hold, 'policy' | 'reason'>,
    options: OperateOptions,
  ): Promise<Operation> {
    const { surgeon, tracker, process } = find(attached, key);
    // Log before the first byte is written: after a crash the log tells which process may be held.
    this.#log.info({ pid: process.pid, comm: process.comm, key, ...wish }, 'holding');
    try {
      return await surgeon.hold(process, options, wish);
    } finally {
      // A failed hold that could not be undone may hold in part: the journal has its record.
      const record = surgeon.heldRecord(process);
      const before = tracker.holds.get(key);
      if (record === undefined) tracker.holds.delete(key);
      else
        tracker.holds.set(key, {
          ...wish,
          since: record.since,
          sinceMs: before?.sinceMs ?? this.#options.context.now(),
        });
    }
  }

  /** Releases a process. @throws DomschedError as {@link JournaledSurgeon.release} */
  async release(
    attached: AttachedDomain | undefined,
    key: string,
    options: OperateOptions,
  ): Promise<Operation> {
    const { surgeon, tracker, process } = find(attached, key);
    const operation = await surgeon.release(process, options);
    if (!options.dryRun) {
      tracker.holds.delete(key);
      const { outcome } = operation;
      this.#log.info({ pid: process.pid, comm: process.comm, key, outcome }, 'released');
    }
    return operation;
  }

  /** Forgets a process that has ended. */
  crossOut(attached: AttachedDomain, { key, process }: Gone): void {
    this.#tries.forget(key);
    const { surgeon } = attached;
    const record = surgeon?.heldRecord(process);
    surgeon
      ?.forget(process)
      .then(async () => {
        if (record === undefined) return;
        // After execve() by another thread the process continues in another task_struct, still held.
        const { policy, reason } = holdOf(record, 0);
        const { context } = this.#options;
        await this.#lane.run(() => search(attached, context, this.#log, { policy, reason }));
      })
      .catch((error: unknown) => this.#log.warn({ err: error }, 'a record could not be crossed out'));
  }

  /** Deletes the records of all holds, because they ended with the domain. Run it in the lane. */
  async crossOutAll({ surgeon }: AttachedDomain): Promise<void> {
    for (const record of surgeon?.held() ?? []) await surgeon?.forget(processOf(record));
  }

  #isDue({ tracker, surgeon }: AttachedDomain, task: Order, nowMs: number): boolean {
    if (!this.#tries.allows(`${task.action} ${task.key}`, nowMs)) return false;
    if (task.action !== 'release' && !this.#tries.allows(PLANS, nowMs)) return false;
    if (task.action !== 'hold') return true;
    // Some kernels' processes cannot be held while they sleep: hold them when they wake.
    const { state } = tracker.view(task.key)!;
    return surgeon!.surgeon.techniques.includes('park') || state !== 'sleeping';
  }

  #shareTasks({ share }: AttachedDomain, wanted: readonly NamedAction[], nowMs: number): ShareTask[] {
    if (share === undefined) return [];
    if (nowMs - this.#shareMs > REFRESH_SHARE_MS) {
      this.#shareMs = nowMs;
      share.refresh().catch((error: unknown) => this.#log.warn({ err: error }, 'its share cannot be read'));
    }
    return shareTasks(share, wanted).filter(({ kind }) => this.#tries.allows(kind, nowMs));
  }

  async #setShare({ share }: AttachedDomain, task: ShareTask, nowMs: number): Promise<boolean> {
    const { kind, value, policy, reason } = task;
    const { id } = this.#options;
    const action = { domain: id, action: kind, policy, reason, techniques: [], pausedUs: 0 };
    try {
      if (value === 'back') await share!.back(kind);
      else await share!.set(kind, value);
      this.#tries.succeed(kind);
      this.#actions.push({ ...action, outcome: 'done' });
      this.#log.info({ [kind]: share!.current[kind], policy, reason }, kind);
      return true;
    } catch (error) {
      this.#tries.fail(kind, nowMs);
      const { code, outcome, message } = failureOf(error);
      this.#actions.push({ ...action, outcome, code });
      this.#log.warn({ code, policy }, `${kind}: ${message}`);
      return false;
    }
  }

  async #perform(
    attached: AttachedDomain,
    task: Order,
    nowMs: number,
    limitMs = EDIT_LIMIT_MS,
  ): Promise<boolean> {
    const { action, key, policy, reason } = task;
    const process = attached.tracker.process(key);
    if (process === undefined) return true;
    const { pid, comm } = process;
    const done = { domain: this.#options.id, action, key, pid, comm, policy, reason };
    try {
      const operation = await this.#edit(attached, task, limitMs);
      this.#tries.succeed(`${action} ${key}`);
      const { techniques = [], pausedUs = 0 } = operation ?? {};
      this.#actions.push({ ...done, outcome: 'done', techniques, pausedUs: Math.round(pausedUs) });
      const { outcome, attempts } = operation ?? { outcome: 'unchanged', attempts: 0 };
      if (operation !== undefined && operation.kept > 0)
        this.#log.warn(
          { kept: operation.kept },
          'structures of ended tasks stay in the guest until it is restarted',
        );
      this.#log.debug(
        { pid, comm, outcome, attempts, pausedUs: Math.round(pausedUs), policy, reason },
        action,
      );
      return true;
    } catch (error) {
      this.#tries.fail(`${action} ${key}`, nowMs);
      const { code, outcome, message } = failureOf(error);
      // One process speaks for all: most of the time goes into the guest's list of tasks.
      if (code === 'over-budget') this.#tries.fail(PLANS, nowMs);
      this.#actions.push({ ...done, outcome, code, techniques: [], pausedUs: 0 });
      if (code === 'process-not-found') return true;
      this.#log.warn({ pid, comm, key, code, policy }, `${action}: ${message}`);
      if (!(error instanceof DomschedError)) this.#log.error({ err: error }, action);
      else if (LOST.has(error.code)) this.#options.onLost(attached, error);
      else if (error.details.restored === false) {
        this.#suspect.set(attached, error);
        this.#log.error(
          { code },
          'an edit of this guest may be half written: no policy edits it any more until it is reset',
        );
      }
      return false;
    }
  }

  #edit(attached: AttachedDomain, task: Order, limitMs: number): Promise<Operation | undefined> {
    const { policy, reason, key } = task;
    const process = attached.tracker.process(key)!;
    if (task.action === 'hold') {
      const { techniques } = this.#options.context;
      const options = { limitMs, ...(techniques && { techniques }) };
      return this.hold(attached, key, { policy, reason }, options);
    }
    if (task.action === 'release') return this.release(attached, key, { limitMs });
    if (task.action !== 'nice') throw new Error('no such task');
    if (task.nice === 'back') return attached.surgeon!.niceBack(process, { limitMs });
    return attached.surgeon!.setNice(process, task.nice, { limitMs }, { policy, reason });
  }
}

function find(
  attached: AttachedDomain | undefined,
  key: string,
): Pick<AttachedDomain, 'tracker'> & { surgeon: JournaledSurgeon; process: Process } {
  const { surgeon, tracker } = attached ?? {};
  const process = tracker?.process(key);
  if (surgeon !== undefined && tracker !== undefined && process !== undefined)
    return { surgeon, tracker, process };
  throw new DomschedError('process-not-found', 'the process has ended', { key });
}

function failureOf(error: unknown): { code: string; outcome: 'refused' | 'failed'; message: string } {
  if (!(error instanceof DomschedError)) {
    const message = error instanceof Error ? error.message : String(error);
    return { code: (error as NodeJS.ErrnoException).code ?? 'internal', outcome: 'failed', message };
  }
  return { code: error.code, outcome: error.exitCode === 3 ? 'refused' : 'failed', message: error.message };
}
