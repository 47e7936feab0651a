import { setTimeout as sleep } from 'node:timers/promises';
import { DomschedError } from '../../error.ts';
import { onExit } from '../exit-guard.ts';
import { PauseCounter } from '../pause-counter.ts';
import { stoppedHolder } from '../standing.ts';
import type {
  Domain,
  DomainEvent,
  DomainIdentity,
  DomainScheduler,
  DomainState,
  FrameReader,
  FrameWriter,
  HostClock,
  Notifier,
  Pausable,
  PauseProof,
  PauseUse,
  RegisterReader,
  StandingPause,
} from '../types.ts';
import type { XenCalls, XenDomainInfo } from './calls.ts';
import { XenFrames } from './frames.ts';
import type { LeftPauses } from './left-pause.ts';
import { msiNotifier } from './notifier.ts';
import { registerReader } from './registers.ts';
import type { Saving, SavingWatch } from './saving.ts';
import { xenScheduler } from './scheduler.ts';
import { SHUTDOWN_REASON } from './structures.ts';
import { vcpuTimes } from './vcpu-times.ts';
import type { WatchedPause, XenWatchdog } from './watchdog.ts';

/** Interval of looks at an otherwise unused domain, so that one that ended is released. */
const LOOK_INTERVAL_MS = 500;
/** How long the answer to "is it being saved?" is valid, because finding out takes a look at every process. */
const SAVING_MS = 250;
/** How long the process beside us may take for a hypercall, and how often to look whether it has made it. */
const CLAIM_MS = 10_000;
const CLAIM_RETRY_MS = 5;
/** Longest time to keep mappings of a guest that has its own frame numbers, see README.md. */
const KEPT_MS = 1_000;

export interface XenDomainParts {
  readonly calls: XenCalls;
  readonly watchdog: XenWatchdog;
  readonly identity: DomainIdentity;
  readonly info: XenDomainInfo;
  readonly saving: SavingWatch;
  readonly left: LeftPauses;
}

/** A domain of Xen: PV, PVH or HVM. */
export class XenDomain implements Domain {
  readonly identity: DomainIdentity;
  readonly domid: number;
  readonly frames: FrameReader;
  readonly writeFrames: FrameWriter;
  readonly registers: RegisterReader;
  readonly pause: Pausable;
  readonly scheduler?: DomainScheduler;
  readonly notify?: Notifier;
  readonly hostClock: HostClock;
  readonly #calls: XenCalls;
  readonly #watchdog: XenWatchdog;
  readonly #saving: SavingWatch;
  readonly #left: LeftPauses;
  readonly #hvm: boolean;
  readonly #frames: XenFrames;
  readonly #counter: PauseCounter;
  readonly #listeners = new Set<(event: DomainEvent) => void>();
  readonly #timer: NodeJS.Timeout;
  /** Facts about our pause for the watchdog, in case we die. */
  readonly #watched: WatchedPause;
  #info: XenDomainInfo;
  #generation = 0;
  #saved: ReadonlyMap<number, Saving> | undefined;
  readonly #forgetSaved = setTimeout(() => {
    this.#saved = undefined;
  }, SAVING_MS).unref();
  #mappedSince = 0;
  /** CPU time of the domain when our pause began, ns; if it has more now, somebody resumed it under us. */
  #pausedAt: bigint | undefined;
  #foundPaused = false;
  readonly #atExit = () => this.#unpauseQuietly();
  #takeBack: (() => void) | undefined;
  #keep = false;
  #closed = false;
  #gone: DomschedError | undefined;

  /** @throws DomschedError `host-unreachable`, `refused`, `domain-gone` */
  constructor({ calls, watchdog, identity, info, saving, left }: XenDomainParts) {
    const { domid } = info;
    this.identity = identity;
    this.domid = domid;
    this.#calls = calls;
    this.#watchdog = watchdog;
    this.#watched = watchdog.watch(domid);
    this.#info = info;
    this.#hvm = info.hvm;
    this.#saving = saving;
    this.#left = left;
    this.hostClock = vcpuTimes(calls, domid, info.maxVcpuId + 1);
    this.registers = registerReader(calls, identity.name, info);
    const scheduler = xenScheduler(calls, domid, info.maxVcpuId + 1);
    if (scheduler !== undefined) this.scheduler = scheduler;
    const notify = info.hvm ? msiNotifier(calls, domid, identity.name) : undefined;
    if (notify !== undefined) this.notify = notify;
    this.#counter = new PauseCounter({
      way: 'Xen',
      counts: true,
      stop: (use) => this.#stop(use),
      prove: async () => this.#prove(),
      // The look itself notices a resume.
      isQuiet: () =>
        this.#look()?.paused === true && this.#pausedAt !== undefined && !this.#watched.isClaimed,
      resume: () => this.#resume(),
      keepOnDeath: (keep) => this.#keepOnDeath(keep),
      abandon: () => this.#abandon(),
    });
    this.pause = this.#counter;
    const space = info.hvm ? 'guest' : 'machine';
    this.#frames = new XenFrames({ calls, domid, name: identity.name, space });
    this.frames = this.#frames;
    this.writeFrames = this.#frames;
    this.#timer = setInterval(() => this.#glance(), LOOK_INTERVAL_MS);
    this.#timer.unref();
  }

  get closed(): boolean {
    return this.#closed;
  }

  get generation(): number {
    return this.#generation;
  }

  tick(): void {
    if (this.#counter.held) return;
    this.#generation += 1;
    this.#look();
    this.#dropOldMappings();
  }

  async state(): Promise<DomainState> {
    if (this.#closed) return 'gone';
    const info = this.#look();
    return info === undefined ? 'gone' : stateOf(info);
  }

  standing(): StandingPause | undefined {
    const info = this.#look();
    if (!info?.paused) return undefined;
    return stoppedHolder(this.#left.folder, 'xen', this.domid) ?? this.#left.standing(info);
  }

  onEvent(listener: (event: DomainEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.#counter.releaseAll();
    } finally {
      this.#closed = true;
      clearInterval(this.#timer);
      clearTimeout(this.#forgetSaved);
      this.#disarm();
      this.#frames.close();
      this.#listeners.clear();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A look without a caller. A failure now repeats for the next caller, who gets it. */
  #glance(): void {
    try {
      this.#look();
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
    }
  }

  /** Asks the hypervisor and handles any change since the last look. @returns undefined once the domain has ended */
  #look(): XenDomainInfo | undefined {
    if (this.#gone !== undefined) return undefined;
    const info = this.#calls.domain(this.domid);
    // Ids are reused; another UUID means another domain.
    if (info === undefined || info.dying || info.uuid !== this.#info.uuid) {
      this.#onGone();
      return undefined;
    }
    const before = this.#info;
    this.#info = info;
    if (this.#pausedAt !== undefined) {
      // Pauses are counted, but anybody may take any of them back; the CPU time shows whether it ran.
      const ran = !info.paused || info.cpuTimeNs !== this.#pausedAt;
      if (ran || this.#watched.isLost) this.#onResumedByOther(info);
    } else if (info.paused !== before.paused) {
      this.#generation += 1;
      this.#emit({ type: info.paused ? 'paused' : 'resumed', byUs: false });
    }
    return info;
  }

  /** Without a turn of the event loop where nothing has to be awaited: on a busy dom0 one costs as much as a hypercall. */
  #stop(use: PauseUse): { foundPaused: boolean } | Promise<{ foundPaused: boolean }> {
    if (this.#watchdog.watches && !this.#watched.isClaimed) return this.#stopNow(use);
    return this.#stopLater(use);
  }

  async #stopLater(use: PauseUse): Promise<{ foundPaused: boolean }> {
    if (!this.#watchdog.watches) await this.#watchdog.ready();
    // An earlier pause that could not be given back.
    if (this.#watched.isClaimed) await this.#resume();
    return this.#stopNow(use);
  }

  #stopNow(use: PauseUse): { foundPaused: boolean } {
    const before = this.#look();
    if (before === undefined) throw this.#gone!;
    this.#checkAtRest(before, ['live', 'suspended']);
    this.#generation += 1;
    // A pause left by a dead process of ours is ours to end, but not by who only looks: an edit may be half written.
    // What it left half written is still so.
    const adopted =
      use === 'edit' &&
      before.paused &&
      this.#left.take(before, () => {
        this.#watched.begin(false, before.cpuTimeNs);
        this.#watched.keep(true);
      });
    const foundPaused = before.paused && !adopted;
    this.#foundPaused = foundPaused;
    this.#keep = adopted;
    // Frame numbers of the guest may mean something else since, and an edit must not use old mappings.
    if (this.#hvm) this.#dropMappings();
    if (!foundPaused && !adopted) this.#watched.begin(false, before.cpuTimeNs);
    this.#takeBack = onExit(this.#atExit);
    let paused = adopted;
    try {
      if (!adopted) this.#calls.pause(this.domid);
      paused = true;
      if (foundPaused) this.#watched.begin(true, before.cpuTimeNs);
      const info = this.#calls.domain(this.domid);
      if (info === undefined || info.dying) this.#onGone();
      if (info === undefined || this.#gone !== undefined) throw this.#gone!;
      this.#info = info;
      this.#pausedAt = info.cpuTimeNs;
      this.#watched.stands(info.cpuTimeNs);
    } catch (error) {
      if (adopted) this.#leave(before);
      else if (paused && !this.#unpauseQuietly()) this.#leaveStanding();
      this.#disarm();
      throw error;
    }
    this.#generation += 1;
    if (!foundPaused) this.#emit({ type: 'paused', byUs: true });
    return { foundPaused };
  }

  #prove(): PauseProof {
    const info = this.#look();
    if (info === undefined) throw this.#gone!;
    const { name } = this.identity;
    if (this.#pausedAt === undefined || !info.paused) {
      throw new DomschedError('edit-conflict', `${name} runs`, { domain: name });
    }
    if (this.#watched.isClaimed) {
      const message = `domsched was stopped (SIGSTOP) in a pause of ${name}, and the process beside it lets the domain go on`;
      throw new DomschedError('edit-conflict', message, { domain: name });
    }
    // A long save was seen when the pause began; this finds one that began since.
    this.#saved = undefined;
    // A save that waits for the domain to suspend cannot read anything while we pause it.
    this.#checkAtRest(info, ['live']);
    return { generation: this.#generation, answers: `${info.cpuTimeNs}` };
  }

  #resume(): void | Promise<void> {
    if (this.#watched.isTaken) return this.#expectUnclaimed().then(() => this.#resumeNow());
    this.#resumeNow();
  }

  #resumeNow(): void {
    this.#look();
    // It has ended, or somebody has already taken our pause back.
    if (this.#pausedAt === undefined) return;
    this.#pausedAt = undefined;
    this.#generation += 1;
    // If the domain was found paused, giving our pause back twice would give back somebody else's.
    if (this.#foundPaused) this.#watched.end();
    try {
      this.#calls.unpause(this.domid);
      this.#info = { ...this.#info, paused: this.#foundPaused };
      if (!this.#foundPaused) this.#emit({ type: 'resumed', byUs: true });
    } catch (error) {
      // A domain that has ended or already runs needs no resume; the caller must know about any other error.
      const info = this.#look();
      if (info?.paused) this.#leave(info);
      if (!(error instanceof DomschedError) || info?.paused) throw error;
    } finally {
      this.#disarm();
    }
  }

  /**
   * The hypervisor counts pauses, so that one of us ends ours: who is about to has its time, and we do if it is dead.
   * @throws DomschedError `timeout` if it neither does nor dies
   */
  async #expectUnclaimed(): Promise<void> {
    for (const end = performance.now() + CLAIM_MS; this.#watched.isTaken; await sleep(CLAIM_RETRY_MS)) {
      if (this.#watched.isLost) return;
      if (performance.now() < end) continue;
      const { name } = this.identity;
      const message = `${name} stays paused: domsched was stopped (SIGSTOP), and the process beside it, which is to let the domain go on, does not`;
      throw new DomschedError('timeout', `${message}; try again`, { domain: name, again: true });
    }
  }

  /** Notes a pause of ours that we cannot end, for the next edit to end it. */
  #leave(info: XenDomainInfo): void {
    try {
      this.#left.note(info);
    } catch {
      // Without room for the note only the caller's error tells of it.
    }
  }

  /** {@link #leave} by what the hypervisor says now, if it stands and was not paused by somebody else too. */
  #leaveStanding(): void {
    try {
      const info = this.#calls.domain(this.domid);
      if (info?.paused && !this.#foundPaused) this.#leave(info);
    } catch {
      // The caller's error tells of it.
    }
  }

  /** Used when the process exits. @returns whether there is nothing left to give back, as far as we know */
  #unpauseQuietly(): boolean {
    if (this.#keep || this.#watched.isTaken) return true;
    if (this.#foundPaused) this.#watched.end();
    try {
      this.#calls.unpause(this.domid);
      this.#watched.end();
      return true;
    } catch (error) {
      // It has ended or already runs; at exit there may be other domains that we have paused.
      if (!(error instanceof DomschedError)) throw error;
      return false;
    }
  }

  #keepOnDeath(keep: boolean): void {
    this.#watched.keep(keep);
    this.#keep = keep;
  }

  /** Leaves it paused, so that an operator can look at it and unpause it. */
  #abandon(): void {
    this.#keep = false;
    this.#disarm();
  }

  #disarm(): void {
    this.#watched.end();
    this.#takeBack?.();
    this.#takeBack = undefined;
    this.#pausedAt = undefined;
  }

  /** @throws DomschedError `refused` for a domain that ended or is being saved in one of these ways */
  #checkAtRest({ shutdown }: XenDomainInfo, ways: readonly Saving[]): void {
    const { name } = this.identity;
    if (shutdown !== undefined) {
      const what = shutdown === SHUTDOWN_REASON.suspend ? 'is being saved or migrated' : 'has shut down';
      throw new DomschedError('refused', `${name} ${what}; nothing of it can be edited`, {
        domain: name,
        shutdown,
      });
    }
    const way = this.#savedDomains().get(this.domid);
    if (way === undefined || !ways.includes(way)) return;
    throw new DomschedError('refused', `${name} is being saved or migrated; try again when that is done`, {
      domain: name,
    });
  }

  /** Forgotten by a timer: reading the clock at each pause costs as much as half a hypercall. A proof asks anew. */
  #savedDomains(): ReadonlyMap<number, Saving> {
    if (this.#saved === undefined) {
      this.#saved = this.#saving.domains();
      this.#forgetSaved.refresh();
    }
    return this.#saved;
  }

  /** The frame numbers of an HVM or PVH guest can change their meaning; the machine frames of a PV guest cannot. */
  #dropOldMappings(): void {
    if (!this.#hvm || this.#frames.kept === 0) return;
    const now = performance.now();
    if (this.#mappedSince === 0) this.#mappedSince = now;
    if (now - this.#mappedSince >= KEPT_MS) this.#dropMappings();
  }

  #dropMappings(): void {
    this.#frames.drop();
    this.#mappedSince = 0;
  }

  #onResumedByOther(info: XenDomainInfo): void {
    this.#generation += 1;
    this.#counter.dissolve();
    this.#keep = false;
    // It ran, so the count was zero and the present pauses are not ours; or the watchdog has given ours back.
    this.#disarm();
    if (!info.paused) this.#emit({ type: 'resumed', byUs: false });
  }

  #onGone(): void {
    if (this.#gone !== undefined) return;
    const { name } = this.identity;
    this.#gone = new DomschedError('domain-gone', `${name} (domain ${this.domid}) has ended`, {
      domain: name,
      domid: this.domid,
    });
    this.#generation += 1;
    clearInterval(this.#timer);
    // Mappings keep a dead domain's memory from being freed.
    this.#frames.fail(this.#gone);
    this.#counter.dissolve();
    this.#keep = false;
    this.#disarm();
    this.#emit({ type: 'gone', reason: this.#gone.message });
  }

  #emit(event: DomainEvent): void {
    if (this.#listeners.size === 0) return;
    for (const listener of [...this.#listeners]) listener(event);
  }
}

/** Domain state from the hypervisor's description. */
export function stateOf({ dying, shutdown, paused }: XenDomainInfo): DomainState {
  if (dying) return 'gone';
  if (shutdown === SHUTDOWN_REASON.crash || shutdown === SHUTDOWN_REASON.watchdog) return 'crashed';
  if (shutdown !== undefined) return 'shutdown';
  return paused ? 'paused' : 'running';
}
