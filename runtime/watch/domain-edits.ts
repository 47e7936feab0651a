import { DomschedError } from '../error.ts';
import type { Process } from '../guest/process.ts';
import type { NamedAction } from '../policy/combine.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import type { TickAction } from '../tick/tick.ts';
import {
  type AttachedDomain,
  type DomainContext,
  type EditableDomain,
  type EditLogger,
  processOf,
  search,
} from './attached-domain.ts';
import { Backoff } from './backoff.ts';
import type { DomainShareKeeper } from './domain-share.ts';
import { type Hold, holdOf } from './hold.ts';
import { Lane } from './lane.ts';
import { processesOf } from './look.ts';
import { NOBODY, type Order, reconcile } from './reconcile.ts';
import { type ShareTask, shareTasks } from './share-tasks.ts';
import { isUntouched, standingsOf } from './standings.ts';
import type { Gone, Tracker } from './tracker.ts';

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
  readonly context: Pick<DomainContext, 'now' | 'techniques' | 'journals'>;
  readonly log: EditLogger;
  /** Whether the edits are still meant for this domain. */
  readonly isCurrent: (attached: AttachedDomain) => boolean;
  /** Called when the domain turns out to be another one than we attached to. */
  readonly onLost: (attached: AttachedDomain, error: DomschedError) => void;
}

/** An edit that was tried on a process. */
export interface TriedEdit {
  readonly process: Process;
  /** Absent if there was nothing to do, or if it failed. */
  readonly operation?: Operation | undefined;
  readonly error?: unknown;
}

/** Edits one domain, one edit at a time and independent of ticks. Remembers what failed and when to retry. */
export class DomainEdits {
  readonly #options: EditsOptions;
  readonly #log: EditLogger;
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
    if (attached.surgeon === undefined || this.busy || this.#suspect.has(attached)) return undefined;
    const { tracker, surgeon } = attached;
    // As it is with most domains at most ticks.
    const idle = wanted.length === 0 && isUntouched(tracker, surgeon);
    const tasks = idle
      ? []
      : reconcile(standingsOf(tracker, surgeon), wanted).filter((task) => this.#isDue(attached, task, nowMs));
    const shares = this.#shareTasks(attached, wanted, nowMs);
    if (tasks.length + shares.length === 0) return undefined;
    return this.#lane.run(async () => {
      for (const task of shares) await this.#setShare(attached.share!, task, nowMs);
      for (const task of tasks) {
        if (!this.#options.isCurrent(attached) || this.#suspect.has(attached)) return;
        await this.#perform(attached, task, nowMs);
      }
    });
  }

  /**
   * Puts everything back: releases, restores nice values and the share. Run it in the lane, after a search. Failures are
   * logged and their records kept.
   */
  async putBack(attached: EditableDomain, limitMs = RELEASE_LIMIT_MS): Promise<TriedEdit[]> {
    const { guest, surgeon, share, tracker } = attached;
    const { now } = this.#options.context;
    // Before the first look, holds that were taken over are known to the journal only.
    for (const { process } of tracker.update(await processesOf(guest), now())) await surgeon.forget(process);
    const tried: TriedEdit[] = [];
    for (const task of reconcile(standingsOf(tracker, surgeon), []))
      tried.push(...(await this.#perform(attached, task, now(), limitMs)));
    for (const kind of share?.ours ?? [])
      await this.#setShare(share!, { kind, value: 'back', ...NOBODY }, now());
    return tried;
  }

  /** Holds a process and records why. @throws DomschedError as {@link JournaledSurgeon.hold} */
  async hold(
    attached: EditableDomain,
    key: string,
    wish: Pick<Hold, 'policy' | 'reason'>,
    options: OperateOptions,
  ): Promise<Operation> {
    const { surgeon, tracker } = attached;
    const process = processWith(key, tracker);
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
    { surgeon, tracker }: EditableDomain,
    key: string,
    options: OperateOptions,
  ): Promise<Operation> {
    const process = processWith(key, tracker);
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
    if (attached.surgeon === undefined) return;
    const record = attached.surgeon.heldRecord(process);
    attached.surgeon
      .forget(process)
      .then(async () => {
        if (record === undefined) return;
        // After execve() by another thread the process continues in another task_struct, still held.
        const { policy, reason } = holdOf(record, 0);
        await this.#lane.run(() => search(attached, this.#options.context, this.#log, { policy, reason }));
      })
      .catch((error: unknown) => this.#log.warn({ err: error }, 'a record could not be crossed out'));
  }

  /** Deletes the records of all holds, because they ended with the domain. Run it in the lane. */
  async crossOutAll({ surgeon }: AttachedDomain): Promise<void> {
    for (const record of surgeon?.held() ?? []) await surgeon?.forget(processOf(record));
  }

  /** Without a place for records nothing is tried: only putting back needs none. */
  get #isWritable(): boolean {
    return this.#options.context.journals.health.failure === undefined;
  }

  #isDue({ tracker, surgeon }: EditableDomain, task: Order, nowMs: number): boolean {
    if (!this.#tries.allows(`${task.action} ${task.key}`, nowMs)) return false;
    if (task.action !== 'release' && !(this.#tries.allows(PLANS, nowMs) && this.#isWritable)) return false;
    if (task.action !== 'hold') return true;
    // Some kernels' processes cannot be held while they sleep: hold them when they wake.
    const { state } = tracker.view(task.key)!;
    return surgeon.surgeon.techniques.includes('park') || state !== 'sleeping';
  }

  #shareTasks({ share }: AttachedDomain, wanted: readonly NamedAction[], nowMs: number): ShareTask[] {
    if (share === undefined) return [];
    if (nowMs - this.#shareMs > REFRESH_SHARE_MS) {
      this.#shareMs = nowMs;
      share.refresh().catch((error: unknown) => this.#log.warn({ err: error }, 'its share cannot be read'));
    }
    return shareTasks(share, wanted).filter(
      ({ kind, value }) => this.#tries.allows(kind, nowMs) && (value === 'back' || this.#isWritable),
    );
  }

  async #setShare(share: DomainShareKeeper, task: ShareTask, nowMs: number): Promise<void> {
    const { kind, value, policy, reason } = task;
    await this.#attempt({ action: kind, policy, reason }, nowMs, async () => {
      if (value === 'back') await share.back(kind);
      else await share.set(kind, value);
      this.#log.info({ [kind]: share.current[kind], policy, reason }, kind);
      return undefined;
    });
  }

  /** @returns nothing if the process has ended */
  async #perform(
    attached: EditableDomain,
    task: Order,
    nowMs: number,
    limitMs = EDIT_LIMIT_MS,
  ): Promise<TriedEdit[]> {
    const { action, key, policy, reason } = task;
    const process = attached.tracker.process(key);
    if (process === undefined) return [];
    const { pid, comm } = process;
    const { operation, error } = await this.#attempt({ action, key, pid, comm, policy, reason }, nowMs, () =>
      this.#edit(attached, task, process, limitMs),
    );
    if (error === undefined) this.#log.debug({ pid, comm, policy, reason, ...costOf(operation) }, action);
    if (operation !== undefined && operation.kept > 0)
      this.#log.warn(
        { kept: operation.kept },
        'structures of ended tasks stay in the guest until it is restarted',
      );
    if (error !== undefined && codeOf(error) === 'process-not-found') return [];
    if (error !== undefined) this.#onFailure(attached, error, action);
    return [{ process, operation, error }];
  }

  /** Tries one edit; remembers its outcome for the next tick, and when to try again. */
  async #attempt(
    about: Pick<TickAction, 'action' | 'key' | 'pid' | 'comm' | 'policy' | 'reason'>,
    nowMs: number,
    edit: () => Promise<Operation | undefined>,
  ): Promise<Pick<TriedEdit, 'operation' | 'error'>> {
    const { action, key, pid, comm, policy } = about;
    const what = key === undefined ? action : `${action} ${key}`;
    const tried = { domain: this.#options.id, ...about };
    try {
      const operation = await edit();
      this.#tries.succeed(what);
      const { techniques = [], pausedUs = 0 } = operation ?? {};
      this.#actions.push({ ...tried, outcome: 'done', techniques, pausedUs: Math.round(pausedUs) });
      return { operation };
    } catch (error) {
      this.#tries.fail(what, nowMs);
      const code = codeOf(error);
      const outcome = error instanceof DomschedError && error.exitCode === 3 ? 'refused' : 'failed';
      this.#actions.push({ ...tried, outcome, code, techniques: [], pausedUs: 0 });
      const message = error instanceof Error ? error.message : String(error);
      // The daemon tells of it once: it is the same for all processes of all domains.
      if (code === 'journal-failed') this.#options.context.journals.health.tell(error as DomschedError);
      else if (code !== 'process-not-found')
        this.#log.warn({ pid, comm, key, code, policy }, `${action}: ${message}`);
      // One process speaks for all: most of the time goes into the guest's list of tasks.
      if (code === 'over-budget') this.#tries.fail(PLANS, nowMs);
      return { error };
    }
  }

  #onFailure(attached: AttachedDomain, error: unknown, action: string): void {
    if (!(error instanceof DomschedError)) this.#log.error({ err: error }, action);
    else if (LOST.has(error.code)) this.#options.onLost(attached, error);
    else if (error.details.restored === false) {
      this.#suspect.set(attached, error);
      this.#log.error(
        { code: error.code },
        'an edit of this guest may be half written: no policy edits it any more until it is reset',
      );
    }
  }

  #edit(
    attached: EditableDomain,
    task: Order,
    process: Process,
    limitMs: number,
  ): Promise<Operation | undefined> {
    const { policy, reason, key } = task;
    const { surgeon } = attached;
    if (task.action === 'nice') {
      if (task.nice === 'back') return surgeon.niceBack(process, { limitMs });
      return surgeon.setNice(process, task.nice, { limitMs }, { policy, reason });
    }
    if (task.action === 'release') return this.release(attached, key, { limitMs });
    const { techniques } = this.#options.context;
    return this.hold(attached, key, { policy, reason }, { limitMs, ...(techniques && { techniques }) });
  }
}

/** @throws DomschedError `process-not-found` */
function processWith(key: string, tracker: Tracker): Process {
  const process = tracker.process(key);
  if (process === undefined) throw new DomschedError('process-not-found', 'the process has ended', { key });
  return process;
}

function costOf(operation: Operation | undefined) {
  const { outcome, attempts, pausedUs } = operation ?? { outcome: 'unchanged', attempts: 0, pausedUs: 0 };
  return { outcome, attempts, pausedUs: Math.round(pausedUs) };
}

function codeOf(error: unknown): string {
  return (error as { readonly code?: string } | undefined)?.code ?? 'internal';
}
