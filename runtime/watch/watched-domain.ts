import { existsSync } from 'node:fs';
import type { Logger } from 'pino';
import { DomschedError } from '../error.ts';
import type { Guest, Snapshot } from '../guest/guest.ts';
import type { LookLimits } from '../guest/look-budget.ts';
import type { Process } from '../guest/process.ts';
import type { DomainIdentity, Host } from '../hypervisor/types.ts';
import type { NamedAction } from '../policy/combine.ts';
import type { DomainView } from '../policy/world.ts';
import type { HeldRecord } from '../surgeon/journal.ts';
import { noWay, type Ways } from '../surgeon/ways.ts';
import type { TickDomain } from '../tick/tick.ts';
import {
  type AttachedDomain,
  attachOrWatch,
  type DomainContext,
  type EditableDomain,
  openFor,
  search,
  viewOf,
} from './attached-domain.ts';
import { Backoff } from './backoff.ts';
import { DomainEdits } from './domain-edits.ts';
import type { Left } from './left.ts';
import { type DomainLook, type LookOptions, lookAt, processesOf } from './look.ts';
import { tickDomain } from './tick-domain.ts';
import type { Tracker } from './tracker.ts';

/** What policies learn from a look at a domain. */
export interface PolicyLook {
  /** Undefined if nobody can tell what ran: then no policy decides about the domain. */
  readonly view: DomainView | undefined;
  /** Nothing has run since the last look. */
  readonly quiet: boolean;
}

/** Looks at one domain may take this part of the time at most. */
const LOOKS_PART = 0.25;
/** Tries to learn the layout of a kernel that does not say enough may take this part of the time at most. */
const LEARNING_PART = 0.05;
/** Nothing is prepared in a domain of which a look takes longer than this, in ms: it would take as long once more. */
const PREPARED_MS = 5;
/** How long an unreadable domain is assumed to continue as before. */
const ASSUMED_MS = 3_000;
/** Error codes of a look that exceeded the limits set for a guest. */
const TOO_MUCH: ReadonlySet<string> = new Set(['over-budget', 'walk-unbounded']);
/** How long a guest shows no progress before we ask its vCPUs whether this kernel still runs. */
const RECHECK_MS = 5_000;
/** Policies need this many looks in a row to know what runs and who waits: the first look cannot tell what ran. */
const TELLING_LOOKS = 3;
/** How long an unreadable domain prevents releases, in other domains too. */
const UNKNOWN_LIMIT_MS = 30_000;

/**
 * One domain of the daemon. Attaching, looking and editing never wait for other domains. Edits run one at a time,
 * independent of ticks.
 */
export class WatchedDomain {
  readonly id: string;
  readonly #host: Host;
  readonly #context: DomainContext;
  readonly #log: Logger;
  readonly edits: DomainEdits;
  readonly #attempts = new Backoff(1_000, 15_000);
  #open: AttachedDomain | undefined;
  #identity: DomainIdentity | undefined;
  #error: DomschedError | undefined;
  #opening: Promise<void> | undefined;
  #closed = false;
  /** An edit runs or ran since the last look, which is therefore out of date. */
  #dirty = true;
  #lookedMs = -Infinity;
  /** When a look was last tried, successful or not, and the average cost of a look, in ms. */
  #triedMs = -Infinity;
  #costMs = 0;
  /** Delays looks at a guest that exceeded the limits. */
  readonly #aside = new Backoff(1_000, 60_000);
  /** Successful looks in a row. */
  #looks = 0;
  /** {@link Guest.advance} at the last look, and when the vCPUs last proved to run this kernel. */
  #progress = -1;
  #recheckedMs = -Infinity;
  /** When policies last knew what runs here; -Infinity if never, or if that no longer counts. */
  #knownMs: number;

  /** @param knownMs when the watcher before us last knew what runs here; -Infinity for a new domain */
  constructor(host: Host, id: string, context: DomainContext, knownMs = -Infinity) {
    this.#host = host;
    this.#knownMs = knownMs;
    this.id = id;
    this.#context = context;
    this.#log = context.log.child({ domain: id });
    this.edits = new DomainEdits({
      id,
      context,
      log: this.#log,
      isCurrent: (attached) => this.#open === attached,
      onLost: (attached, error) => this.#lose(attached, error),
    });
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

  /** Ways to hold its processes, and reasons against the other ways. */
  get ways(): Ways | undefined {
    const open = this.#open;
    if (open === undefined) return undefined;
    const { failure } = this.#context.journals.health;
    if (failure !== undefined) return noWay(failure);
    return open.surgeon?.surgeon.ways ?? noWay(open.refusal!);
  }

  get tracker(): Tracker | undefined {
    return this.#open?.tracker;
  }

  /** Whether there is no machine, only the socket of a dead one. */
  get absent(): boolean {
    const errno = this.#error?.details.errno;
    return this.#open === undefined && (errno === 'ECONNREFUSED' || errno === 'ENOENT');
  }

  /**
   * Whether processes that policies knew may run here unseen: while we attach again after a start or a lost connection,
   * or while the domain cannot be read.
   */
  isUnknown(nowMs: number): boolean {
    if (this.#looks >= TELLING_LOOKS) return false;
    return !this.absent && nowMs - this.#knownMs < UNKNOWN_LIMIT_MS;
  }

  /** Attaches if an attempt is due. Resolves after the attempt, successful or not. */
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

  /**
   * Reads what runs, without pausing the guest and without waiting.
   * @param roused tasks that a sentinel saw on CPUs just before
   */
  look(nowMs: number, roused: readonly number[] = []): PolicyLook {
    const open = this.#open;
    if (open === undefined) return { view: undefined, quiet: true };
    const { tracker, guest } = open;
    // A guest that is slow to read is read less often, so that other domains need not wait.
    const due = this.#triedMs + this.#costMs / LOOKS_PART;
    if (nowMs < due) return this.#assume(open, nowMs);
    if (!this.#aside.allows('look', nowMs)) return { view: undefined, quiet: true };
    const begin = this.#context.now();
    try {
      const quiet = !this.#dirty && guest.isQuiet();
      if (quiet) tracker.still(nowMs);
      else {
        const { processes, hasQueues } = snapshotOf(guest, this.#context.limits);
        this.#see(open, processes, nowMs);
        for (const task of roused) tracker.rouse(guest.pidOf(task) ?? -1);
        // Only run queues tell whether a guest is idle.
        this.#dirty = !hasQueues;
      }
      if (quiet) open.account.rest();
      else open.account.look(nowMs);
      this.#error = undefined;
      if (this.#moved(guest, quiet)) this.#recheckedMs = nowMs;
      else this.#recheck(open, nowMs);
      this.#lookedMs = nowMs;
      this.#looks += 1;
      this.#aside.succeed('look');
      if (this.#looks >= TELLING_LOOKS) this.#knownMs = nowMs;
      return { view: this.#view(open), quiet };
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      this.#dirty = true;
      if (TOO_MUCH.has(error.code)) {
        // What a kernel has left behind, and another one uses, may be links without end.
        this.#recheck(open, nowMs);
        return this.#setAside(error, nowMs);
      }
      const isTorn = error.code === 'guest-inconsistent';
      if (isTorn && nowMs - this.#lookedMs < ASSUMED_MS) return this.#assume(open, nowMs);
      if (isTorn) this.#recheck(open, nowMs);
      this.#error = error;
      this.#looks = 0;
      if (!isTorn) this.#lose(open, error);
      return { view: undefined, quiet: false };
    } finally {
      // A failed look takes time too.
      this.#triedMs = nowMs;
      this.#costMs = 0.8 * this.#costMs + 0.2 * (this.#context.now() - begin);
    }
  }

  #see(open: AttachedDomain, processes: readonly Process[], nowMs: number): void {
    for (const gone of open.tracker.update(processes, nowMs)) this.edits.crossOut(open, gone);
  }

  /** Postpones the next look, each time for longer; other domains are not affected. */
  #setAside(error: DomschedError, nowMs: number): PolicyLook {
    if (this.#error?.code !== error.code) this.#log.warn({ code: error.code }, error.message);
    this.#error = error;
    this.#looks = 0;
    this.#aside.fail('look', nowMs);
    return { view: undefined, quiet: true };
  }

  /** Whether the guest's kernel has made progress since the last look. */
  #moved(guest: Guest, quiet: boolean): boolean {
    // A quiet look has just read the words that tell.
    const { count } = quiet ? guest.queueWords().advance() : guest.advance();
    const moved = count !== this.#progress;
    this.#progress = count;
    return moved;
  }

  /**
   * Asks the vCPUs from time to time whether a kernel that stands still or no longer fits was replaced (`kexec`, a
   * crash kernel): its memory may look unchanged.
   */
  #recheck(open: AttachedDomain, nowMs: number): void {
    if (nowMs - this.#recheckedMs < RECHECK_MS) return;
    this.#recheckedMs = nowMs;
    void open.guest.verifyRuns().catch((error: unknown) => {
      if (error instanceof DomschedError && error.code === 'kernel-unidentified') this.#lose(open, error);
    });
  }

  /** Answers without a look, as if nothing had changed. */
  #assume(open: AttachedDomain, nowMs: number): PolicyLook {
    open.tracker.estimate(nowMs);
    return { view: this.#view(open), quiet: false };
  }

  #view(open: AttachedDomain): DomainView | undefined {
    return open.tracker.looks > 1 ? viewOf(this.id, this.name, open) : undefined;
  }

  /** Starts the edits that lead to the wanted state, unless edits are still under way. */
  adjust(wanted: readonly NamedAction[], nowMs: number): boolean {
    const open = this.#open;
    const edits = open && this.edits.adjust(open, wanted, nowMs);
    if (edits === undefined) return false;
    this.#dirty = true;
    void edits.then(() => {
      this.#dirty = true;
    });
    return true;
  }

  /**
   * Prepares the hold of a process that may have to be held before the next tick. Pauses nothing.
   * @returns whether there was anything to prepare
   */
  prepare(key: string): boolean {
    const open = this.#open;
    if (open?.surgeon === undefined || this.edits.busy || this.#costMs > PREPARED_MS) return false;
    const process = open.tracker.process(key);
    const { techniques } = this.#context;
    return process !== undefined && open.surgeon.surgeon.prepare(process, techniques && { techniques });
  }

  /**
   * Performs an operator's request after the edits under way.
   * @throws DomschedError `host-unreachable` while the domain is not attached; what `perform` throws
   */
  async operate<T>(perform: (attached: EditableDomain) => Promise<T>): Promise<T> {
    return this.edits.run(async () => {
      const open = this.#open;
      if (open === undefined) {
        throw this.#error ?? new DomschedError('host-unreachable', `${this.name} is not attached to yet`, {});
      }
      if (open.surgeon === undefined) throw open.refusal;
      this.#dirty = true;
      return perform(open);
    });
  }

  /** Looks now, at an operator's request: the last tick may be a whole interval old. */
  async read(options: LookOptions): Promise<DomainLook> {
    if (this.#open !== undefined) return lookAt(this.#open, options);
    return { identity: { id: this.id, name: this.name, ...this.#identity }, error: this.describe().error! };
  }

  /** The same for an edit, by which everything learns what has changed. @throws DomschedError as {@link Guest.take} */
  async refresh(open: EditableDomain): Promise<readonly Process[]> {
    const processes = await processesOf(open.guest);
    this.#see(open, processes, this.#context.now());
    return processes;
  }

  /**
   * Searches the guest for processes that are held without a record.
   * @returns records that were missing
   * @throws DomschedError as {@link operate}
   */
  async search(): Promise<readonly HeldRecord[]> {
    return this.operate((open) => search(open, this.#context, this.#log));
  }

  /**
   * Puts holds, nice values and share back, also what an attempt to attach that is under way takes over.
   * @returns the processes that the guest still holds
   */
  async restore(): Promise<Left[]> {
    await this.#opening;
    return this.edits.run(async () => {
      const open = this.#open;
      if (open?.surgeon === undefined) return [];
      await search(open, this.#context, this.#log);
      await this.edits.putBack(open);
      // The guest itself decides what is still held, not our records.
      const held = await open.surgeon.surgeon.search();
      return held.map(({ pid, comm }) => ({ domain: this.id, what: 'held', pid, comm }));
    });
  }

  describe(): TickDomain {
    const open = this.#open;
    const share = open?.share?.current;
    const facts = {
      id: this.id,
      name: this.name,
      hypervisor: this.#host.hypervisor,
      vcpus: open?.guest.cpus.length ?? 0,
      ...(share !== undefined && { weight: share.weight, cap: share.cap }),
    };
    const error =
      this.#error ??
      open?.refusal ??
      (open && this.edits.suspicion(open)) ??
      (open ? undefined : new DomschedError('host-unreachable', 'not attached to yet', {}));
    // After a failed look nothing is known of the processes.
    const tracker = this.#error === undefined ? open?.tracker : undefined;
    return tickDomain(facts, { guest: open?.guest, tracker, error });
  }

  /** Resolves when neither an attempt to attach nor an edit is under way. */
  async settled(): Promise<void> {
    await this.#opening;
    await this.edits.idle();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.settled();
    const open = this.#open;
    this.#open = undefined;
    open?.guest.detach();
    await open?.domain.close();
  }

  async #attach(nowMs: number): Promise<void> {
    const begin = this.#context.now();
    try {
      const open = await openFor(this.#host, this.id, (domain) => {
        this.#identity = domain.identity;
        return attachOrWatch(domain, this.#context, this.#log);
      });
      if (this.#closed) {
        open.guest.detach();
        await open.domain.close();
        return;
      }
      open.domain.onEvent((event) => {
        if (event.type !== 'gone' && event.type !== 'reset') return;
        const text = event.type === 'gone' ? event.reason : `${this.name} was reset`;
        if (event.type === 'reset') this.#knownMs = -Infinity;
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
      if (!(error instanceof DomschedError)) this.#log.error({ err: error }, 'attaching failed');
      const known = error instanceof DomschedError ? error : new DomschedError('protocol', String(error), {});
      if (this.#error?.message !== known.message) this.#log.warn({ code: known.code }, known.message);
      this.#error = known;
      // Tables that take a minute to refuse take that from the host seldom.
      const learnedMs = known.code === 'layout-unknown' ? this.#context.now() - begin : 0;
      this.#attempts.fail('attach', nowMs, learnedMs + learnedMs / LEARNING_PART);
    }
  }

  /** Detaches from a domain that is no longer the one that we attached to. */
  #lose(open: AttachedDomain, error: DomschedError): void {
    if (this.#open !== open) return;
    this.#open = undefined;
    this.#looks = 0;
    this.#lookedMs = -Infinity;
    this.#triedMs = -Infinity;
    this.#error = error;
    open.guest.detach();
    this.#log.warn({ code: error.code }, error.message);
    const pid = open.domain.identity.pid;
    const ended = pid !== undefined && !existsSync(`/proc/${pid}`);
    if (ended) this.#knownMs = -Infinity;
    void this.edits.run(async () => {
      await open.domain.close().catch(() => undefined);
      // Holds end with the domain. If only the connection broke, their records let us find them again.
      if (ended) await this.edits.crossOutAll(open);
    });
  }
}

/**
 * Reads everything at one moment. Leaves out run queues that change faster than they can be read: policies need the
 * processes only.
 * @throws DomschedError as {@link Guest.snapshot}
 */
function snapshotOf(guest: Guest, limits: LookLimits): Snapshot {
  try {
    return guest.snapshot({ limits, unlisted: true });
  } catch (error) {
    if (!(error instanceof DomschedError) || error.code !== 'guest-inconsistent') throw error;
    return guest.processesAlone({ limits });
  }
}
