import { existsSync } from 'node:fs';
import type { Logger } from 'pino';
import { DomschedError } from '../error.ts';
import { bootMark } from '../guest/boot-mark.ts';
import { Guest } from '../guest/guest.ts';
import { originOf } from '../guest/origin.ts';
import type { Process } from '../guest/process.ts';
import type { Domain, DomainIdentity, Host } from '../hypervisor/types.ts';
import type { KnownKernel } from '../layout/registry.ts';
import type { Named } from '../policy/combine.ts';
import type { DomainView } from '../policy/world.ts';
import type { Technique } from '../surgery/holder.ts';
import type { HeldRecord } from '../surgery/journal.ts';
import { JournaledSurgeon, type Journals } from '../surgery/journaled-surgeon.ts';
import type { OperateOptions, Operation } from '../surgery/surgeon.ts';
import { Backoff } from './backoff.ts';
import { DomainShareKeeper, type ShareKind } from './domain-share.ts';
import { Lane } from './lane.ts';
import { NOBODY, reconcile, type Standing, type Task } from './reconcile.ts';
import type { ActionReport, DomainReport } from './report.ts';
import { type Gone, type Hold, Tracker } from './tracker.ts';

/** What all watched domains share. */
export interface DomainContext {
  readonly log: Logger;
  readonly journals: Journals;
  /** Monotonic, in ms. */
  readonly now: () => number;
  readonly known: () => Promise<readonly KnownKernel[]>;
  /** How many domains are attached to at a time: it takes the CPU for a while. */
  readonly attaching: Lane;
  /** Ways to hold; undefined for all that a guest has. */
  techniques: readonly Technique[] | undefined;
  /** Whether anybody wants to know users, control groups and command lines. */
  origins: boolean;
}

/** What a look at a domain gave. */
export interface Look {
  /** Undefined while nothing can be said of what ran: then no policy decides on the domain. */
  readonly view: DomainView | undefined;
  /** Nothing has run since the last look. */
  readonly quiet: boolean;
}

/** An attached domain. */
interface Open {
  readonly domain: Domain;
  readonly guest: Guest;
  /** Undefined where nothing can be held: why. */
  readonly surgeon: JournaledSurgeon | undefined;
  readonly refusal: DomschedError | undefined;
  readonly share: DomainShareKeeper | undefined;
  readonly tracker: Tracker;
}

/** Longest part of the time that looks at one domain may take. */
const LOOKS_PART = 0.25;
/** How long an edit that a policy wants is tried, in ms. The next tick may want another one. */
const EDIT_LIMIT_MS = 1_000;
/** How long, when all has to go back. */
const RELEASE_LIMIT_MS = 5_000;
/** Looks after which a hold is looked at thread by thread, though nothing hints at it having got loose. */
const CHECK_EVERY = 10;
const REFRESH_SHARE_MS = 2_000;

/**
 * One domain under the daemon: attached to, looked at, edited, each without waiting for any other domain. Edits are
 * made one after the other, beside the ticks.
 */
export class WatchedDomain {
  readonly id: string;
  readonly #host: Host;
  readonly #context: DomainContext;
  readonly #log: Logger;
  readonly #edits = new Lane(1);
  readonly #tries = new Backoff();
  readonly #attempts = new Backoff(1_000, 15_000);
  #open: Open | undefined;
  #identity: DomainIdentity | undefined;
  #error: DomschedError | undefined;
  #opening: Promise<void> | undefined;
  #closed = false;
  /** A hold, release or the like is under way or was: the last look says nothing of now. */
  #dirty = true;
  #lookedMs = -Infinity;
  #costMs = 0;
  #shareMs = -Infinity;
  #actions: ActionReport[] = [];

  constructor(host: Host, id: string, context: DomainContext) {
    this.#host = host;
    this.id = id;
    this.#context = context;
    this.#log = context.log.child({ domain: id });
  }

  get name(): string {
    return this.#identity?.name ?? this.id.slice(this.id.lastIndexOf('/') + 1).replace(/\.sock$/, '');
  }

  get identity(): DomainIdentity | undefined {
    return this.#identity;
  }

  get guest(): Guest | undefined {
    return this.#open?.guest;
  }

  get tracker(): Tracker | undefined {
    return this.#open?.tracker;
  }

  /** Nobody is there: a socket that a dead machine left behind. */
  get absent(): boolean {
    const errno = this.#error?.details.errno;
    return this.#open === undefined && (errno === 'ECONNREFUSED' || errno === 'ENOENT');
  }

  /** Attaches, if it is time to try. Resolves when that is done, whatever came of it. */
  attach(nowMs: number): Promise<void> {
    if (this.#open !== undefined || this.#closed || !this.#attempts.allows('attach', nowMs))
      return Promise.resolve();
    this.#opening ??= this.#context.attaching
      .run(() => this.#attach(nowMs))
      .finally(() => {
        this.#opening = undefined;
      });
    return this.#opening;
  }

  /** Looks at what runs. Takes no pause and never waits. */
  look(nowMs: number): Look {
    const open = this.#open;
    if (open === undefined) return { view: undefined, quiet: true };
    const { tracker, guest } = open;
    // A guest that takes long to look at is looked at less often, so that others are not made to wait for it.
    const due = this.#lookedMs + this.#costMs / LOOKS_PART;
    if (nowMs < due && tracker.looks > 0) {
      tracker.estimate(nowMs);
      return { view: this.#view(open), quiet: false };
    }
    const begin = this.#context.now();
    try {
      const quiet = !this.#dirty && guest.isQuiet();
      if (quiet) tracker.still(nowMs);
      else {
        for (const gone of tracker.update(guest.snapshot().processes, nowMs)) this.#crossOut(open, gone);
        this.#dirty = false;
      }
      this.#error = undefined;
      this.#lookedMs = nowMs;
      this.#costMs = 0.8 * this.#costMs + 0.2 * (this.#context.now() - begin);
      return { view: tracker.looks > 1 ? this.#view(open) : undefined, quiet };
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      this.#error = error;
      this.#dirty = true;
      if (error.code !== 'guest-inconsistent') this.#lose(open, error);
      return { view: undefined, quiet: false };
    }
  }

  /** Starts what it takes to get to what is wanted, unless that is still under way. */
  adjust(wanted: readonly Named[], nowMs: number): boolean {
    const open = this.#open;
    if (open?.surgeon === undefined || this.#edits.busy) return false;
    const tasks = reconcile(this.#standings(open, open.surgeon), wanted).filter((task) =>
      this.#isDue(open, task, nowMs),
    );
    const shares = this.#shareTasks(open, wanted, nowMs);
    if (tasks.length + shares.length === 0) return false;
    this.#dirty = true;
    void this.#edits.run(async () => {
      for (const task of shares) await this.#setShare(open, task, nowMs);
      for (const task of tasks) {
        if (this.#open !== open) return;
        await this.#perform(open, task, nowMs);
      }
      this.#dirty = true;
    });
    return true;
  }

  /**
   * Does something to the domain after what is under way, for an operator.
   * @throws DomschedError `host-unreachable` while the domain is not attached to; what `perform` throws
   */
  async operate<T>(perform: (surgeon: JournaledSurgeon, tracker: Tracker) => Promise<T>): Promise<T> {
    return this.#edits.run(async () => {
      const open = this.#open;
      if (open === undefined) {
        throw this.#error ?? new DomschedError('host-unreachable', `${this.name} is not attached to yet`, {});
      }
      if (open.surgeon === undefined) throw open.refusal!;
      this.#dirty = true;
      return perform(open.surgeon, open.tracker);
    });
  }

  /** Holds a process and writes down why. @throws DomschedError as {@link JournaledSurgeon.hold} */
  async hold(
    key: string,
    wish: { policy: string; reason: string },
    options: OperateOptions,
  ): Promise<Operation> {
    const { surgeon, tracker, process } = this.#find(key);
    // Before the first byte is written: whoever reads the log after a crash knows what may be held.
    this.#log.info({ pid: process.pid, comm: process.comm, key, ...wish }, 'holding');
    try {
      return await surgeon.hold(process, options, wish);
    } finally {
      // One that failed and could not be undone may be held in part: the journal knows.
      const record = surgeon.heldRecord(process);
      const before = tracker.holds.get(key);
      if (record === undefined) tracker.holds.delete(key);
      else
        tracker.holds.set(key, {
          ...wish,
          since: record.since,
          sinceMs: before?.sinceMs ?? this.#context.now(),
        });
    }
  }

  /** Lets a process go on. @throws DomschedError as {@link JournaledSurgeon.release} */
  async release(key: string, options: OperateOptions): Promise<Operation> {
    const { surgeon, tracker, process } = this.#find(key);
    const operation = await surgeon.release(process, options);
    if (!options.dryRun) {
      tracker.holds.delete(key);
      const { outcome } = operation;
      this.#log.info({ pid: process.pid, comm: process.comm, key, outcome }, 'released');
    }
    return operation;
  }

  /** Everything back as it was: holds, nice values, share. @returns how many could not be put back */
  async restore(): Promise<number> {
    return this.#edits.run(async () => {
      const open = this.#open;
      if (open?.surgeon === undefined) return 0;
      // What was taken over before the first look is in the journal only.
      const { processes } = await open.guest.take({ withoutQueues: true });
      open.tracker.update(processes, this.#context.now());
      const tasks = reconcile(this.#standings(open, open.surgeon), []);
      let failed = 0;
      for (const task of tasks)
        if (!(await this.#perform(open, task, this.#context.now(), RELEASE_LIMIT_MS))) failed += 1;
      for (const kind of ['weight', 'cap'] as const) {
        if (!open.share?.isSet(kind)) continue;
        if (!(await this.#setShare(open, { kind, value: 'back', ...NOBODY }, this.#context.now())))
          failed += 1;
      }
      return failed;
    });
  }

  /** Takes what was tried since the last call. */
  takeActions(): ActionReport[] {
    const taken = this.#actions;
    this.#actions = [];
    return taken;
  }

  report(): DomainReport {
    const open = this.#open;
    const share = open?.share?.current;
    const error = this.#error ?? open?.refusal;
    const known = {
      id: this.id,
      name: this.name,
      hypervisor: this.#host.hypervisor,
      ...(open !== undefined && { kernel: open.guest.kernel.release }),
      vcpus: open?.guest.cpus.length ?? 0,
      ...(share !== undefined && { weight: share.weight, cap: share.cap }),
      processes: this.#error === undefined ? (open?.tracker.reports() ?? []) : [],
    };
    if (open !== undefined && error === undefined) return known;
    const { code, message } = error ?? { code: 'host-unreachable', message: 'not attached to yet' };
    return { ...known, error: { code, message } };
  }

  /** Resolves when nothing is under way: neither attaching nor an edit. */
  async settled(): Promise<void> {
    await this.#opening;
    await this.#edits.idle();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.settled();
    const open = this.#open;
    this.#open = undefined;
    open?.guest.detach();
    await open?.domain.close();
  }

  #find(key: string): { surgeon: JournaledSurgeon; tracker: Tracker; process: Process } {
    const { surgeon, tracker } = this.#open ?? {};
    const process = tracker?.process(key);
    if (surgeon !== undefined && tracker !== undefined && process !== undefined)
      return { surgeon, tracker, process };
    throw new DomschedError('process-not-found', 'the process has ended', { key });
  }

  async #attach(nowMs: number): Promise<void> {
    let domain: Domain | undefined;
    try {
      domain = await this.#host.open(this.id);
      this.#identity = domain.identity;
      const open = await this.#prepare(domain);
      if (this.#closed) {
        open.guest.detach();
        await domain.close();
        return;
      }
      this.#takeOver(open);
      domain.onEvent((event) => {
        if (event.type !== 'gone' && event.type !== 'reset') return;
        const text = event.type === 'gone' ? event.reason : `${this.name} was reset`;
        this.#lose(open, new DomschedError('domain-gone', text, { domain: this.name }));
      });
      this.#open = open;
      this.#error = undefined;
      this.#dirty = true;
      this.#attempts.succeed('attach');
      const { release } = open.guest.kernel;
      const recovery = open.surgeon?.recovery;
      this.#log.info(
        { name: this.name, kernel: release, held: open.tracker.holds.size, recovery },
        'attached',
      );
      if (open.refusal) this.#log.warn({ code: open.refusal.code }, open.refusal.message);
    } catch (error) {
      await domain?.close().catch(() => undefined);
      if (!(error instanceof DomschedError)) this.#log.error({ err: error }, 'attaching failed');
      const known = error instanceof DomschedError ? error : new DomschedError('protocol', String(error), {});
      if (this.#error?.message !== known.message) this.#log.warn({ code: known.code }, known.message);
      this.#error = known;
      this.#attempts.fail('attach', nowMs);
    }
  }

  async #prepare(domain: Domain): Promise<Open> {
    const known = await this.#context.known();
    const { journals } = this.#context;
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
        : await DomainShareKeeper.open(domain.scheduler, journals.changes, {
            connection: identity.connection,
            domain: identity.id,
            name: identity.name,
            hypervisorPid: identity.pid ?? null,
          });
    const tracker = new Tracker({
      domain: this.id,
      domainName: identity.name,
      boot: surgeon?.boot ?? bootMark(guest),
      origin: (process) => (this.#context.origins ? originOf(guest, process) : {}),
    });
    return { domain, guest, surgeon, refusal, share, tracker };
  }

  /** What a daemon before us, or a command, holds: it stays so until somebody decides otherwise. */
  #takeOver({ surgeon, tracker }: Open): void {
    for (const record of surgeon?.held() ?? []) {
      const key = tracker.keyOf(processOf(record));
      // By the host's clock, which may have been set meanwhile: never longer than it can be, nor negative.
      const elapsed = Math.max(0, Date.now() - Date.parse(record.since)) || 0;
      const { policy = OPERATOR, reason = 'held by a command', since } = record;
      const hold: Hold = { policy, reason, since, sinceMs: this.#context.now() - elapsed };
      tracker.holds.set(key, hold);
      this.#log.info({ pid: record.pid, comm: record.comm, key, policy }, 'taken over');
    }
  }

  #view(open: Open): DomainView {
    const share = open.share?.current;
    return {
      id: this.id,
      name: this.name,
      vcpus: open.guest.cpus.length,
      ...(share !== undefined && { weight: share.weight, cap: share.cap }),
      processes: open.tracker.views(),
    };
  }

  #standings({ tracker }: Open, surgeon: JournaledSurgeon): Standing[] {
    return tracker.views().map((view) => {
      const process = tracker.process(view.key)!;
      const held = tracker.holds.has(view.key);
      const niced = surgeon.niceRecord(process);
      const loose = held && this.#isLoose(view.ranNs, process, surgeon, tracker);
      return { process: view, held, loose, niced: niced && { before: niced.before, set: niced.set } };
    });
  }

  /** Whether a held process may have got loose: thawed by its guest, or grown a thread. */
  #isLoose(ranNs: number, process: Process, { surgeon }: JournaledSurgeon, tracker: Tracker): boolean {
    if (ranNs === 0 && tracker.looks % CHECK_EVERY !== 0) return false;
    try {
      return !surgeon.seemsHeld(process);
    } catch (error) {
      if (error instanceof DomschedError) return false;
      throw error;
    }
  }

  #isDue({ tracker, surgeon }: Open, task: Task, nowMs: number): boolean {
    if (!this.#tries.allows(`${task.action} ${task.key}`, nowMs)) return false;
    if (task.action !== 'hold') return true;
    // Some kernels' processes cannot be held in their sleep: when they wake, then.
    const { state } = tracker.view(task.key)!;
    return surgeon!.surgeon.techniques.includes('park') || state !== 'sleeping';
  }

  #shareTasks({ share }: Open, wanted: readonly Named[], nowMs: number): ShareTask[] {
    if (share === undefined) return [];
    if (nowMs - this.#shareMs > REFRESH_SHARE_MS) {
      this.#shareMs = nowMs;
      share.refresh().catch((error: unknown) => this.#log.warn({ err: error }, 'its share cannot be read'));
    }
    const tasks: ShareTask[] = [];
    for (const kind of ['weight', 'cap'] as const) {
      if (!this.#tries.allows(kind, nowMs)) continue;
      const action = wanted.find(({ type }) => type === kind);
      const value =
        action === undefined
          ? undefined
          : action.type === 'weight'
            ? action.weight
            : action.type === 'cap'
              ? action.cap
              : undefined;
      if (value === undefined) {
        if (share.isSet(kind)) tasks.push({ kind, value: 'back', ...NOBODY });
      } else if (share.wanted(kind) !== value && (share.isSet(kind) || share.current[kind] !== value)) {
        tasks.push({ kind, value, policy: action!.policy, reason: action!.reason });
      }
    }
    return tasks;
  }

  async #setShare({ share }: Open, task: ShareTask, nowMs: number): Promise<boolean> {
    const { kind, value, policy, reason } = task;
    const report = { domain: this.id, action: kind, policy, reason, techniques: [], pausedUs: 0 };
    try {
      if (value === 'back') await share!.back(kind);
      else await share!.set(kind, value);
      this.#tries.succeed(kind);
      this.#actions.push({ ...report, outcome: 'done' });
      this.#log.info({ [kind]: share!.current[kind], policy, reason }, kind);
      return true;
    } catch (error) {
      this.#tries.fail(kind, nowMs);
      const { code, outcome, message } = failureOf(error);
      this.#actions.push({ ...report, outcome, code });
      this.#log.warn({ code, policy }, `${kind}: ${message}`);
      return false;
    }
  }

  async #perform(open: Open, task: Task, nowMs: number, limitMs = EDIT_LIMIT_MS): Promise<boolean> {
    const { action, key, policy, reason } = task;
    const process = open.tracker.process(key);
    if (process === undefined) return true;
    const { pid, comm } = process;
    const report = { domain: this.id, action, key, pid, comm, policy, reason };
    try {
      const operation = await this.#edit(open, task, limitMs);
      this.#tries.succeed(`${action} ${key}`);
      const { techniques = [], pausedUs = 0 } = operation ?? {};
      this.#actions.push({ ...report, outcome: 'done', techniques, pausedUs: Math.round(pausedUs) });
      const { outcome, attempts } = operation ?? { outcome: 'unchanged', attempts: 0 };
      this.#log.debug(
        { pid, comm, outcome, attempts, pausedUs: Math.round(pausedUs), policy, reason },
        action,
      );
      return true;
    } catch (error) {
      this.#tries.fail(`${action} ${key}`, nowMs);
      const { code, outcome, message } = failureOf(error);
      this.#actions.push({ ...report, outcome, code, techniques: [], pausedUs: 0 });
      if (code === 'process-not-found') return true;
      this.#log.warn({ pid, comm, key, code, policy }, `${action}: ${message}`);
      if (!(error instanceof DomschedError)) this.#log.error({ err: error }, action);
      else if (LOST.has(error.code)) this.#lose(open, error);
      return false;
    }
  }

  #edit(open: Open, task: Task, limitMs: number): Promise<Operation | undefined> {
    const { policy, reason, key } = task;
    const process = open.tracker.process(key)!;
    if (task.action === 'hold') {
      const { techniques } = this.#context;
      return this.hold(key, { policy, reason }, { limitMs, ...(techniques && { techniques }) });
    }
    if (task.action === 'release') return this.release(key, { limitMs });
    if (task.action !== 'nice') throw new Error('no such task');
    if (task.nice === 'back') return open.surgeon!.niceBack(process, { limitMs });
    return open.surgeon!.setNice(process, task.nice, { limitMs }, { policy, reason });
  }

  /** A process is no more: nobody has to look for it. */
  #crossOut({ surgeon }: Open, { key, process }: Gone): void {
    this.#tries.forget(key);
    surgeon
      ?.forget(process)
      .catch((error: unknown) => this.#log.warn({ err: error }, 'a record could not be crossed out'));
  }

  /** The domain is not what was attached to any more. */
  #lose(open: Open, error: DomschedError): void {
    if (this.#open !== open) return;
    this.#open = undefined;
    this.#error = error;
    open.guest.detach();
    this.#log.warn({ code: error.code }, error.message);
    const pid = open.domain.identity.pid;
    const ended = pid !== undefined && !existsSync(`/proc/${pid}`);
    void this.#edits.run(async () => {
      await open.domain.close().catch(() => undefined);
      // What was held ended with it. Where only the connection broke, the records lead back.
      if (!ended) return;
      for (const record of open.surgeon?.held() ?? []) await open.surgeon?.forget(processOf(record));
    });
  }
}

/** Whose a hold is that no policy asked for. */
export const OPERATOR = 'operator';

interface ShareTask {
  readonly kind: ShareKind;
  readonly value: number | 'back';
  readonly policy: string;
  readonly reason: string;
}

/** A guest that cannot be edited can be watched even so. */
const WATCHED_ONLY: ReadonlySet<string> = new Set(['refused', 'capability-missing']);
const LOST: ReadonlySet<string> = new Set(['domain-gone', 'kernel-unidentified']);

function processOf({ pid, address, startTimeNs }: HeldRecord) {
  return { pid, address: BigInt(address) as never, startTimeNs };
}

function failureOf(error: unknown): { code: string; outcome: 'refused' | 'failed'; message: string } {
  if (!(error instanceof DomschedError)) {
    const message = error instanceof Error ? error.message : String(error);
    return { code: (error as NodeJS.ErrnoException).code ?? 'internal', outcome: 'failed', message };
  }
  return { code: error.code, outcome: error.exitCode === 3 ? 'refused' : 'failed', message: error.message };
}
