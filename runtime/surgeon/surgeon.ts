import { setTimeout as sleep } from 'node:timers/promises';
import { Draft } from '../edit/draft.ts';
import type { Edit, Invariant } from '../edit/edit.ts';
import type { EditRecords } from '../edit/log.ts';
import { loggedEdit } from '../edit/logged-edit.ts';
import { type BeforeCommit, commit } from '../edit/transaction.ts';
import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { hasHaltedForGood } from '../guest/identify/identify.ts';
import { overBudget, ownTimeMs } from '../guest/look-budget.ts';
import type { Process } from '../guest/process.ts';
import { vcpusByCpu } from '../guest/vcpus.ts';
import type { DomainWith, VcpuRegisters } from '../hypervisor/types.ts';
import type { GuestVirtual } from '../memory/address.ts';
import type { Step, Technique, WantedInterrupt } from '../technique/step.ts';
import { type GiveBack, HELD, type Holder, type ThreadStanding } from './holder.ts';
import { Interrupts } from './interrupts.ts';
import { Patience } from './patience.ts';
import { checkMayBeHeld, isGone, refusal } from './refusal.ts';
import { THREADS_PER_PAUSE, ThreadTurns } from './thread-turns.ts';
import { type Ways, waysOf } from './ways.ts';

/** Identifies a process: `startTimeNs` and `address` distinguish it from a later one with the same pid. */
export type ProcessKey = Pick<Process, 'pid' | 'address' | 'startTimeNs'>;

export interface OperateOptions {
  /** Techniques that may be used; defaults to the best for the guest's scheduler. */
  techniques?: readonly Technique[];
  /** Allows what is refused to protect the guest: holding real-time threads and programs that serve its storage. */
  force?: boolean;
  /** How long to keep trying, in ms of guest progress: see {@link Patience}. */
  limitMs?: number;
  /** Plans once and changes nothing. */
  dryRun?: boolean;
  /** Called with each edit before its first byte is written. */
  journal?: (edit: Edit) => Promise<void>;
}

export interface Operation {
  readonly pid: number;
  readonly outcome: 'held' | 'released' | 'reniced' | 'unchanged' | 'planned';
  /** Techniques by which threads were held or released. */
  readonly techniques: readonly Technique[];
  /** How often the domain was paused. */
  readonly attempts: number;
  /** All pauses together, in µs, each from when the domain is known to stand still until it is told to continue. */
  readonly pausedUs: number;
  /** Number of words written. */
  readonly writes: number;
  readonly edits: readonly Edit[];
  /** Structures of ended tasks that the guest keeps until it restarts: see {@link GiveBack}. Usually 0. */
  readonly kept: number;
  /** Pids of all affected processes, if the operation by its nature affects several. */
  readonly members?: readonly number[];
  /** For plans only: how the domain would be paused, and why other techniques are not available. */
  readonly means?: readonly string[];
}

const DEFAULT_LIMIT_MS = 5_000;
/** Wait between two tries, in ms: from a fraction of a tick to several, so that the guest makes progress. */
const FIRST_WAIT_MS = 1;
const LAST_WAIT_MS = 20;
/** Time between two looks without a pause, in ms, and for how long they replace one with a pause. */
const GLANCE_MS = 2;
const GLANCES_MS = 40;
/** A release waits at most this many looks for wake-ups of ended threads; the next operation gives back the rest. */
const MAX_SETTLING = 16;
/** A search takes at most this many looks while locks are held. */
const MAX_LOOKS = 16;
/** The most threads that one process of a guest may have. */
const MAX_THREADS = 4_096;
/** CPU time for reading and planning in one pause, in ms, and how often it may be exceeded before we give up. */
const PLAN_LIMIT_MS = 250;
const MAX_SLOW_PLANS = 3;
const NO_LIMIT = Number.POSITIVE_INFINITY;

type Goal = 'held' | 'released' | 'reniced';

/** What planning needs is still at hand this long after the last plan for a process, in ms; and for so many of them. */
const REHEARSED_MS = 60_000;
const MOST_REHEARSED = 256;

/** Plans what to do in this pause. */
type MakePlan = (draft: Draft, threads: readonly Process[], turns: ThreadTurns) => StepPlan;

export interface SurgeonLimits {
  readonly planMs: number;
}

/** Performs edits on one guest, each in its own pause and through a transaction. */
export class Surgeon {
  readonly #domain: DomainWith<'pause' | 'writeFrames'>;
  readonly #guest: Guest;
  readonly #holder: Holder;
  readonly #log: EditRecords | undefined;
  readonly #limits: SurgeonLimits;
  #interrupts: Interrupts | undefined;
  /** When an edit of a process was planned last, by goal and process. */
  readonly #rehearsed = new Map<string, number>();

  /** @param log records an edit under way, so that it can be undone if we are killed */
  constructor(
    domain: DomainWith<'pause' | 'writeFrames'>,
    guest: Guest,
    holder: Holder,
    log?: EditRecords,
    limits: SurgeonLimits = { planMs: PLAN_LIMIT_MS },
  ) {
    this.#limits = limits;
    this.#domain = domain;
    this.#guest = guest;
    this.#holder = holder;
    this.#log = log;
  }

  /** Techniques that this guest's kernel supports. */
  get techniques(): readonly Technique[] {
    return this.#holder.techniques;
  }

  get ways(): Ways {
    return waysOf(this.#domain, this.#holder);
  }

  /**
   * Looks, without a pause, whether every thread of a process is held. A running guest may contradict itself, so the
   * result only says whether to look again under a pause, as {@link hold} does.
   * @throws DomschedError `process-not-found`, `guest-inconsistent`
   */
  seemsHeld(key: ProcessKey): boolean {
    this.#domain.tick();
    const draft = new Draft(this.#guest.space);
    return this.#threadsOf(key).every(({ address }) => {
      const standing = this.#holder.standing(draft, address);
      return standing === 'held' || standing === 'exempt';
    });
  }

  /**
   * Searches the guest itself for held processes, whoever held them and wherever. A kernel between two steps may look
   * so for a moment, so two looks with guest progress in between must agree.
   * @returns the leaders of processes with a thread that is held or asked to be
   * @throws DomschedError `lock-held`, `guest-inconsistent` if no look succeeded
   */
  async search(): Promise<Process[]> {
    let before: ReadonlySet<string> | undefined;
    for (let look = 1; ; look++) {
      try {
        const { threads, processes } = await this.#suspects();
        if (threads.length === 0) return [];
        const both = threads.filter((thread) => before?.has(keyOf(thread)));
        const pids = new Set(both.map(({ tgid }) => tgid));
        if (before !== undefined) return processes.filter(({ pid }) => pids.has(pid));
        before = new Set(threads.map(keyOf));
      } catch (error) {
        if (!isPassing(error) || look >= MAX_LOOKS) throw error;
      }
      await sleep(LAST_WAIT_MS);
    }
  }

  /**
   * Threads that look held, and all processes. Many threads are checked over several pauses: held ones stay held
   * meanwhile and start no thread.
   */
  async #suspects(): Promise<{ threads: Process[]; processes: Process[] }> {
    let processes: Process[] = [];
    let left: Process[] | undefined;
    const threads: Process[] = [];
    do {
      const guard = await this.#domain.pause.acquire();
      try {
        this.#guest.verify();
        if (left === undefined) {
          processes = [...this.#guest.snapshot({ threads: true }).processes];
          left = processes.filter((each) => !each.kernelThread && !isGone(each));
        }
        const draft = new Draft(this.#guest.space);
        const some = left.splice(0, THREADS_PER_PAUSE);
        threads.push(...some.filter(({ address }) => this.#looksHeld(draft, address)));
      } finally {
        await guard.release();
      }
    } while (left.length > 0);
    return { threads, processes };
  }

  #looksHeld(draft: Draft, thread: GuestVirtual): boolean {
    return HELD.has(this.#holder.standing(draft, thread));
  }

  /**
   * Holds every thread of a process, including those that it starts meanwhile.
   * @throws DomschedError `refused` (nothing changed), `lock-held` or `timeout` if it could not be done in time
   *   (`details.undone` tells whether the partial hold was undone), `process-not-found`, what {@link commit} throws
   */
  hold(key: ProcessKey, options: OperateOptions = {}): Promise<Operation> {
    return this.#hold(key, options, (standing) => standing === 'held');
  }

  /** @param isEnough whether nothing has to be done to a thread that stands so */
  async #hold(
    key: ProcessKey,
    options: OperateOptions,
    isEnough: (standing: ThreadStanding) => boolean,
  ): Promise<Operation> {
    const techniques = options.techniques ?? this.#holder.automatic;
    if (!techniques.some((technique) => this.#holder.techniques.includes(technique))) {
      const known = this.#holder.techniques.join(', ');
      const reasons = techniques.flatMap((technique) => {
        const reason = this.#holder.refused?.get(technique);
        return reason === undefined ? [] : [`: ${technique} is refused since ${reason}`];
      });
      throw new DomschedError(
        'refused',
        `this guest's kernel has no ${techniques.join(', ')}, but ${known}${reasons.join('')}; nothing was changed`,
        { techniques, known: this.#holder.techniques },
      );
    }
    const edits: Edit[] = [];
    try {
      return await this.#repeat('held', key, options, this.#holdPlan(options, isEnough), edits);
    } catch (error) {
      if (!(error instanceof DomschedError) || edits.length === 0 || options.dryRun) throw error;
      // A half-written guest is for an operator to examine; we must not write more into it.
      if (error.details.restored === false) throw error;
      throw await this.#undone(key, options, error);
    }
  }

  /**
   * Prepares a hold that is likely to come: plans it while the guest runs, and drops the plan. Nothing is paused.
   * @returns false if there was nothing to do, because one was planned a short time ago
   */
  prepare(key: ProcessKey, options: OperateOptions = {}): boolean {
    return this.#rehearse('held', key, this.#holdPlan(options));
  }

  #holdPlan(
    { techniques = this.#holder.automatic, force = false }: OperateOptions,
    isEnough: (standing: ThreadStanding) => boolean = (standing) => standing === 'held',
  ): MakePlan {
    return (draft, threads, turns) => {
      checkMayBeHeld(threads, force);
      return this.#planEach(draft, threads, turns, (thread) => {
        const standing = this.#holder.standing(draft, thread);
        if (isEnough(standing) || standing === 'exempt') return 'done';
        return this.#holder.planHold(draft, thread, techniques) ?? 'later';
      });
    };
  }

  /** Releases every thread of a process. @throws as {@link hold} */
  release(key: ProcessKey, options: OperateOptions = {}): Promise<Operation> {
    return this.#repeat('released', key, options, (draft, threads, turns) =>
      this.#planEach(draft, threads, turns, (thread) => {
        if (this.#holder.standing(draft, thread) === 'changing') return 'later';
        return this.#holder.planRelease(draft, thread) ?? 'done';
      }),
    );
  }

  /**
   * Gives every thread of a process another nice value. If that requires a hold, the process is held for the edit and
   * then continues, unless it was held before.
   * @param nice -20..19
   * @throws DomschedError as {@link hold}
   */
  async renice(key: ProcessKey, nice: number, options: OperateOptions = {}): Promise<Operation> {
    if (!this.#holder.renicesHeld || options.dryRun) return this.#renice(key, nice, options);
    const wasHeld = await this.#isHeld(key, options);
    // A thread is reniced where it is in no queue. Where nothing holds one that sleeps, its sleep has to do.
    const holdsSleepers = this.#holder.techniques.includes('park');
    const isEnough = (standing: ThreadStanding) =>
      standing === 'held' || (standing === 'sleeping' && !holdsSleepers);
    const operations = [await this.#hold(key, options, isEnough)];
    try {
      operations.push(await this.#renice(key, nice, options));
      if (!wasHeld) operations.push(await this.release(key, options));
    } catch (error) {
      if (wasHeld || !(error instanceof DomschedError)) throw error;
      throw await this.#undone(key, options, error);
    }
    return { ...together(operations), outcome: 'reniced' };
  }

  /**
   * Gives the process's scheduling group (autogroup or control group) the weight among groups that a nice value has
   * among processes. This affects all processes of the group, listed in `members`. Nothing is held.
   * @param nice -20..19
   * @throws DomschedError as {@link hold}; `refused` if there are no groups, or for a process in the root group
   */
  async reniceGroup(key: ProcessKey, nice: number, options: OperateOptions = {}): Promise<Operation> {
    const { shares, sharesRefused } = this.#holder;
    if (shares === undefined) {
      throw new DomschedError(
        'refused',
        `groups of this guest cannot be reniced: ${sharesRefused ?? 'its scheduler knows none'}; ` +
          'renice the process without --group; nothing was changed',
        { pid: key.pid },
      );
    }
    let members: readonly number[] = [];
    const operation = await this.#repeat('reniced', key, options, (draft, [leader]) => {
      const group = shares.groupOf(draft, leader!.address);
      const { processes } = this.#guest.processesAlone();
      members = processes
        .filter(({ address }) => shares.groupOf(draft, address) === group)
        .map(({ pid }) => pid);
      const outcome = [shares.plan(draft, leader!.address, nice)];
      return { ...NOTHING_TO_DO, outcome };
    });
    return { ...operation, members };
  }

  #renice(key: ProcessKey, nice: number, options: OperateOptions): Promise<Operation> {
    return this.#repeat('reniced', key, options, (draft, threads) => {
      const process = threads[0]!;
      if (process.kernelThread && !options.force) throw refusal(process, 'is a kernel thread');
      const outcome: Invariant[] = [];
      const late: LateThread[] = [];
      for (const { pid, address } of threads) {
        const invariants = this.#holder.planRenice(draft, address, nice);
        if (invariants === 'later')
          late.push({ pid, address, standing: this.#holder.standing(draft, address) });
        else outcome.push(...invariants);
      }
      return { ...NOTHING_TO_DO, finished: late.length === 0, outcome, late };
    });
  }

  /** Releases what a failed operation held. @returns the failure, with `details.undone` for the result of that */
  async #undone(key: ProcessKey, options: OperateOptions, error: DomschedError): Promise<DomschedError> {
    const undone = await this.release(key, options).then(
      () => true,
      () => false,
    );
    return new DomschedError(error.code, error.message, { ...error.details, undone }, { cause: error });
  }

  async #isHeld(key: ProcessKey, options: OperateOptions): Promise<boolean> {
    let held = false;
    await this.#repeat('held', key, { ...options, dryRun: true }, (draft, [leader]) => {
      held = this.#holder.standing(draft, leader!.address) === 'held';
      return NOTHING_TO_DO;
    });
    return held;
  }

  #planEach(
    draft: Draft,
    threads: readonly Process[],
    turns: ThreadTurns,
    plan: (thread: GuestVirtual) => 'done' | 'later' | Step,
  ): StepPlan {
    const techniques: Technique[] = [];
    const outcome: Invariant[] = [];
    // Threads on one CPU share their invariants.
    const invariants = new Map<string, Invariant>();
    const interrupts: WantedInterrupt[] = [];
    const { now, waiting } = turns.choose(threads.filter((each) => !isGone(each)));
    const late: LateThread[] = [];
    const isLate = ({ pid, address }: Process, standing: ThreadStanding) =>
      void late.push({ pid, address, standing });
    for (const each of now) {
      const thread = each.address;
      const step = plan(thread);
      if (step === 'done') {
        turns.finish(each);
        continue;
      }
      if (step === 'later') {
        isLate(each, this.#holder.standing(draft, thread));
        continue;
      }
      if (step.technique !== null) techniques.push(step.technique);
      outcome.push(...step.outcome);
      for (const invariant of step.invariants ?? []) invariants.set(invariant.what, invariant);
      interrupts.push(...(step.interrupts ?? []));
      // A thread that was asked to leave is not held yet, and a requested wake-up has not happened yet.
      const standing = this.#holder.standing(draft, thread);
      if (standing === 'leaving' || standing === 'changing') isLate(each, standing);
    }
    const finished = waiting + late.length === 0;
    return { finished, techniques, invariants: [...invariants.values()], outcome, interrupts, late };
  }

  async #repeat(
    goal: Goal,
    key: ProcessKey,
    options: OperateOptions,
    plan: MakePlan,
    edits: Edit[] = [],
  ): Promise<Operation> {
    const patience = new Patience(options.limitMs ?? DEFAULT_LIMIT_MS);
    const techniques = new Set<Technique>();
    const clock = { pausedUs: 0 };
    let last: DomschedError | undefined;
    let late: readonly LateThread[] = [];
    let [changed, kept, settling, slow] = [false, 0, 0, 0];
    const turns = new ThreadTurns();
    this.#rehearse(goal, key, plan);
    for (let attempt = 1, wait = FIRST_WAIT_MS; ; attempt++) {
      const doneBefore = turns.done;
      const done = await this.#once(goal, key, options, plan, { clock, patience, edits, turns }).catch(
        (error: unknown) => {
          // Locks are held for microseconds and lists soon leave a state in between, so another look may succeed.
          if (!isPassing(error)) throw error;
          // The host may be busy for a moment, too.
          if (error.code === 'over-budget' && ++slow === MAX_SLOW_PLANS) throw error;
          last = error;
          return null;
        },
      );
      if (done !== null) {
        last = undefined;
        late = done.late;
        kept += done.kept;
        if (done.outcome.length > 0) changed = true;
        for (const technique of done.techniques) techniques.add(technique);
        if (!options.dryRun) await this.#interrupts?.send(done.interrupts);
        const writes = edits.reduce((sum, edit) => sum + edit.writes.length, 0);
        const result = {
          pid: key.pid,
          techniques: [...techniques],
          attempts: attempt,
          pausedUs: clock.pausedUs,
          writes,
          edits,
          kept,
        };
        if (options.dryRun) return { ...result, outcome: 'planned', means: this.#means() };
        // Threads that ended on their way out of a hold leave words that only a later look can give back.
        const settled = goal !== 'released' || done.pending === 0 || settling++ === MAX_SETTLING;
        if (done.finished && settled) {
          // A thread that continued and then ended counts as released.
          if (done.ended !== undefined && !changed) throw done.ended;
          return { ...result, outcome: changed ? goal : 'unchanged' };
        }
      }
      // Releases go a few threads at a time, and so do holds of many: progress renews the budget.
      const inParts = goal === 'released' || turns.parts > 1;
      const stepped = done !== null && (done.outcome.length > 0 || turns.done > doneBefore);
      const advanced = inParts && stepped;
      if (advanced) patience.renew(turns.parts);
      if (patience.over) throw last ?? (await this.#timeout(goal, key, late));
      wait = advanced ? FIRST_WAIT_MS : Math.min(2 * wait, LAST_WAIT_MS);
      if (done !== null && turns.parts === 1 && done.late.length > 0 && done.late.every(isGuestsTurn))
        await this.#guestsTurn(done.late);
      else await sleep(wait);
    }
  }

  /**
   * Waits while all that is left is for the guest to do, and looks without a pause whether it has: each pause costs the
   * guest more time than our look. A running guest may contradict itself, so the result only says when to pause again.
   */
  async #guestsTurn(late: readonly LateThread[]): Promise<void> {
    const begin = performance.now();
    for (let wait = FIRST_WAIT_MS; ; wait = GLANCE_MS) {
      await sleep(wait);
      if (this.#hasMovedOn(late) || performance.now() - begin >= GLANCES_MS) return;
    }
  }

  /** Whether every thread seems to stand otherwise than before. */
  #hasMovedOn(late: readonly LateThread[]): boolean {
    try {
      this.#domain.tick();
      const draft = new Draft(this.#guest.space);
      return late.every(({ address, standing }) => this.#holder.standing(draft, address) !== standing);
    } catch {
      return false;
    }
  }

  #means(): string[] {
    const { way } = this.#domain.pause;
    const others = [...(this.#holder.refused ?? [])].map(([technique, why]) => `not by ${technique}: ${why}`);
    return [...(way === undefined ? [] : [`paused by ${way}`]), ...others];
  }

  async #once(
    goal: string,
    key: ProcessKey,
    options: OperateOptions,
    plan: MakePlan,
    {
      clock,
      patience,
      edits,
      turns,
    }: { clock: { pausedUs: number }; patience: Patience; edits: Edit[]; turns: ThreadTurns },
  ) {
    const guard = await this.#domain.pause.acquire();
    const start = performance.now();
    try {
      this.#guest.verify();
      patience.look(this.#guest.advance());
      await this.#prepared();
      await this.#observed(options.techniques ?? this.#holder.automatic);
      // A release may take as long as it needs.
      const limitMs = goal === 'released' || options.dryRun ? NO_LIMIT : this.#limits.planMs;
      const planning = ownTimeMs();
      const draft = new Draft(this.#guest.space);
      this.#holder.checkLocks(draft);
      const back = options.dryRun ? NOTHING_BACK : this.#giveBack(draft, key);
      const { planned, ended } = this.#planned(goal, key, limitMs, (threads) => plan(draft, threads, turns));
      const invariants = [...this.#holder.invariants(), ...planned.invariants];
      const outcome = [...back.outcome, ...planned.outcome];
      const drafted = draft.edit(`${goal} pid ${key.pid}`, invariants, outcome);
      // Parking, and giving back after it, are harmless in parts; for nice values that is not proved.
      const inParts = goal !== 'reniced' && planned.techniques.every((technique) => technique === 'park');
      if (ownTimeMs() - planning > limitMs) throw this.#tooLong(limitMs);
      const edit: Edit = inParts ? { ...drafted, harmlessInParts: true } : drafted;
      if (edit.writes.length > 0 && !options.dryRun) {
        const journal: BeforeCommit = async (planned, writes) => {
          try {
            await options.journal?.(planned);
            if (goal === 'held') await this.#log?.reserve();
            return this.#log?.begin(loggedEdit(this.#guest, planned, writes));
          } catch (error) {
            // A release needs no room on the host. If we are killed in the middle of one, the domain stays paused.
            if (goal === 'released') return undefined;
            throw error;
          }
        };
        await commit(this.#domain, this.#guest.space, guard, edit, journal);
      }
      // Record this before the domain resumes, which may fail.
      if (edit.writes.length > 0) edits.push(edit);
      return { ...planned, ended, edit, kept: back.kept, pending: back.pending };
    } finally {
      clock.pausedUs += (performance.now() - start) * 1000;
      await guard.release();
    }
  }

  /** Gives back in the next edit what releases borrowed, also for a process that we lost. */
  #giveBack(draft: Draft, key: ProcessKey): GiveBack {
    // Threads that the plan itself may edit are no candidates.
    const threads = () => {
      const { processes } = this.#guest.snapshot({ threads: true });
      const others = processes.filter(({ kernelThread, tgid }) => !kernelThread && tgid !== key.pid);
      return others.map(({ address }) => address);
    };
    return this.#holder.planGiveBack?.(draft, threads) ?? NOTHING_BACK;
  }

  /** @returns `ended` if the process has; a release must still look after what it borrowed for it */
  #planned(
    goal: string,
    key: ProcessKey,
    limitMs: number,
    plan: (threads: readonly Process[]) => StepPlan,
  ): { planned: StepPlan; ended?: DomschedError } {
    try {
      return { planned: plan(this.#threadsOf(key, goal === 'released' ? NO_LIMIT : MAX_THREADS, limitMs)) };
    } catch (error) {
      const ended = error instanceof DomschedError && error.code === 'process-not-found';
      if (goal !== 'released' || !ended) throw error;
      return { planned: NOTHING_TO_DO, ended: error };
    }
  }

  /**
   * Plans once while the guest runs and drops the plan, unless the same was planned a short time ago: loading, compiling and
   * translating now saves time in the pause. A plan only reads, and any error will recur in the pause.
   * @returns whether it planned
   */
  #rehearse(goal: Goal, key: ProcessKey, plan: MakePlan): boolean {
    const name = `${goal} ${keyOf(key)}`;
    const nowMs = performance.now();
    const isReady = nowMs - (this.#rehearsed.get(name) ?? -Infinity) < REHEARSED_MS;
    if (this.#rehearsed.size >= MOST_REHEARSED) this.#rehearsed.clear();
    this.#rehearsed.set(name, nowMs);
    if (isReady) return false;
    try {
      this.#domain.tick();
      const draft = new Draft(this.#guest.space);
      plan(draft, this.#threadsOf(key, MAX_THREADS, this.#limits.planMs), new ThreadTurns());
      for (const invariant of this.#holder.invariants()) invariant.check(draft);
    } catch {
      // A running guest contradicts itself now and then.
    }
    return true;
  }

  /** Runs once, in the first pause; a failure is retried in the next. */
  async #prepared(): Promise<void> {
    if (this.#interrupts !== undefined) return;
    await this.#holder.prepare?.(this.#domain, new Draft(this.#guest.space));
    this.#interrupts = await Interrupts.of(this.#domain, this.#guest);
  }

  /** Reads what the vCPUs do in this pause, if the plan needs it. */
  async #observed(techniques: readonly Technique[]): Promise<void> {
    const wanted = this.#holder.needsRegisters?.(techniques) ?? false;
    // Registers of an earlier pause say nothing about this pause.
    const vcpus = wanted
      ? vcpusByCpu(this.#guest, (await this.#domain.registers?.read()) ?? [])
      : new Map<number, VcpuRegisters>();
    this.#holder.observe?.(vcpus);
  }

  /** Explains the time-out: a guest that has halted makes no progress, however long we wait. */
  async #timeout(goal: string, key: ProcessKey, late: readonly LateThread[]): Promise<DomschedError> {
    const vcpus = (await this.#domain.registers?.read()) ?? [];
    const halted = vcpus.filter(hasHaltedForGood).length;
    const [first] = late;
    const others = late.length > 1 ? `, and ${late.length - 1} more are not ready` : '';
    const which =
      first === undefined
        ? 'it changed at each look'
        : `its thread ${first.pid} is still ${first.standing}${others}`;
    const why =
      halted === 0
        ? `${which}. Try again, or give it longer`
        : `${halted} of the guest's ${vcpus.length} CPUs have halted with interrupts off: it panicked or was shut down. ` +
          'Look at its console';
    const message = `process ${key.pid} could not be ${goal} in time: ${why}`;
    return new DomschedError('timeout', message, {
      pid: key.pid,
      goal,
      halted,
      late: late.map(({ pid, standing }) => ({ pid, standing })),
    });
  }

  #tooLong(limitMs: number): DomschedError {
    const why = `planning an edit of it takes more than ${limitMs} ms of a pause; nothing was written`;
    return overBudget(this.#domain.identity.name, why);
  }

  /** All threads of the process, its leader first. Read during the pause, so none can start meanwhile. */
  #threadsOf(key: ProcessKey, most = MAX_THREADS, limitMs = NO_LIMIT): Process[] {
    const limits = { lookMs: limitMs, bytes: NO_LIMIT };
    const { processes } = this.#guest.processesAlone({ threads: true, limits });
    const threads = processes.filter(({ tgid }) => tgid === key.pid);
    const leader = threads.find(({ pid }) => pid === key.pid);
    if (leader === undefined || leader.address !== key.address || leader.startTimeNs !== key.startTimeNs) {
      throw new DomschedError('process-not-found', `process ${key.pid} has ended`, { pid: key.pid });
    }
    if (threads.length > most) throw refusal(leader, `has more than ${most} threads`);
    return [leader, ...threads.filter((thread) => thread !== leader)];
  }
}

function keyOf({ pid, address, startTimeNs }: ProcessKey): string {
  return `${pid} ${address} ${startTimeNs}`;
}

/** Combines several operations on one process. */
function together(operations: readonly Operation[]): Omit<Operation, 'outcome'> {
  const sum = (of: (operation: Operation) => number) =>
    operations.reduce((total, operation) => total + of(operation), 0);
  return {
    pid: operations[0]!.pid,
    techniques: [...new Set(operations.flatMap(({ techniques }) => techniques))],
    attempts: sum(({ attempts }) => attempts),
    pausedUs: sum(({ pausedUs }) => pausedUs),
    writes: sum(({ writes }) => writes),
    kept: sum(({ kept }) => kept),
    edits: operations.flatMap(({ edits }) => edits),
  };
}

interface StepPlan {
  readonly finished: boolean;
  readonly techniques: readonly Technique[];
  readonly invariants: readonly Invariant[];
  readonly outcome: readonly Invariant[];
  readonly interrupts: readonly WantedInterrupt[];
  /** Threads for which another step is needed. */
  readonly late: readonly LateThread[];
}

interface LateThread {
  readonly pid: number;
  readonly address: GuestVirtual;
  readonly standing: ThreadStanding;
}

/** Whether a thread was asked for something that it has yet to do. */
function isGuestsTurn({ standing }: LateThread): boolean {
  return standing === 'leaving' || standing === 'changing';
}

const NOTHING_TO_DO: StepPlan = {
  finished: true,
  techniques: [],
  invariants: [],
  outcome: [],
  interrupts: [],
  late: [],
};
const NOTHING_BACK: GiveBack = { outcome: [], pending: 0, kept: 0 };

/** Error codes that another look may not meet. `edit-conflict` is one: somebody resumed the domain during our pause. */
const PASSING: ReadonlySet<string> = new Set([
  'lock-held',
  'guest-inconsistent',
  'edit-conflict',
  'over-budget',
]);

/** Also true for a pause that a busy host did not give in time. */
function isPassing(error: unknown): error is DomschedError {
  return error instanceof DomschedError && (PASSING.has(error.code) || error.details.again === true);
}
