import { setTimeout as sleep } from 'node:timers/promises';
import { DomschedError } from '../error.ts';
import { requireCapabilities } from '../hypervisor/capability.ts';
import type { FrameNumber } from '../hypervisor/frame.ts';
import type { Domain } from '../hypervisor/types.ts';
import { optionalField, requiredField } from '../layout/members.ts';
import type { KnownKernel } from '../layout/registry.ts';
import type { LayoutView } from '../layout/view.ts';
import type { SymbolName } from '../members/symbols.ts';
import type { GuestVirtual } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import { Arena } from './arena.ts';
import { hasBanner } from './identify/banner.ts';
import { hasHaltedForGood, identify, isRunBy, placeOf } from './identify/identify.ts';
import type { IdentifiedKernel } from './identify/types.ts';
import { requireSymbolAddress, symbolAddress } from './kernel.ts';
import { LookBudget, type LookLimits } from './look-budget.ts';
import { type GuestCpu, onlineCpus, percpuVariable } from './percpu.ts';
import { addressPointer, type KernelPointer, NO_POINTER, pointerAddress } from './pointer.ts';
import type { Process } from './process.ts';
import { type ProcessTables, ProcessWalk } from './process-walk.ts';
import { type Fact, prove } from './prove.ts';
import { type QueueSlots, queueSlots } from './queue-slots.ts';
import { type QueueTables, QueueWalk, queueTables } from './queue-walk.ts';
import { type QueueFields, QueueWords } from './queue-words.ts';
import { describeQueues, type RunQueue } from './run-queue.ts';
import { signalSlots, type TaskSlots, taskSlots, threadInfoSlots } from './task-slots.ts';

/** With these a guest could not be asked, whatever its layout is. */
const GONE: ReadonlySet<string> = new Set(['domain-gone', 'host-unreachable', 'timeout']);

/** Most tasks of one guest: four times the default limit of pids of a Linux with many CPUs. */
const MAX_TASKS = 131_072;
/** How often a contradictory look at a running guest is repeated at once. */
const MAX_ATTEMPTS = 8;
/** In ms. After that the guest gets time: our host may have stopped one of its CPUs in the middle of an edit. */
const FIRST_WAIT_MS = 1;
const LAST_WAIT_MS = 50;
const DEFAULT_LIMIT_MS = 2_000;
/** How long a kernel in memory without registers may have something to do and not move before another one is searched. */
const MOVES_WITHIN_MS = 500;
const MOVES_EVERY_MS = 5;
/** Most kernels in one memory: `kexec` and crashes may leave some. */
const MAX_KERNELS = 8;
/** Time between two searches for another kernel: each reads much memory, so it doubles. */
const SEARCH_PAUSE_MS = 5_000;

export interface SnapshotOptions {
  /** List threads instead of processes. */
  readonly threads?: boolean;
  /** Limits on the cost of the look; none when left out. */
  readonly limits?: LookLimits;
  /** Read the run queues, which shows whether the look is consistent, but do not list them. */
  readonly unlisted?: boolean;
}

export interface TakeOptions extends SnapshotOptions {
  /** Pause the domain while it is read, for an exact snapshot. */
  readonly pause?: boolean;
  /** Time after which to give up, in ms. */
  readonly limitMs?: number;
  /**
   * When the run queues stay inconsistent, list the processes without them: it is better to show a domain that somebody
   * else paused in the middle of an edit than not to.
   */
  readonly withoutQueues?: boolean;
}

/** State of a guest's kernel at one moment. */
export interface Snapshot {
  readonly processes: readonly Process[];
  /** Empty when they could not be read, see {@link TakeOptions.withoutQueues} and {@link Guest.queuesUnknown}. */
  readonly runQueues: readonly RunQueue[];
  /** Whether the run queues were read. */
  readonly hasQueues: boolean;
  /** Looks that were thrown away because they contradicted themselves. */
  readonly retries: number;
  /** True if the domain was paused while it was read. */
  readonly exact: boolean;
}

/**
 * A guest whose kernel is known and whose layout is proved, with its processes and run queues. Everything that does not
 * change while the kernel runs is resolved once, in {@link Guest.attach}.
 */
export class Guest {
  readonly domain: Domain<FrameNumber>;
  readonly kernel: IdentifiedKernel;
  readonly queueSlots: QueueSlots;
  readonly taskSlots: TaskSlots;
  /** Facts that were checked before the layout was used. */
  facts: readonly Fact[] = [];
  /**
   * For an image taken while the guest ran: how its run queues contradict each other. Its processes can be listed, and
   * {@link take} works without the queues.
   */
  torn: string | undefined;
  /**
   * Why this kernel's run queues are not read: their shape is unknown, or they do not hold what they count. Its
   * processes are listed without them, and nothing edits a queue.
   */
  queuesUnknown: string | undefined;
  cpus: readonly GuestCpu[];
  /** The walk over run queues; its columns are those of the last {@link watch}. */
  readonly queues: QueueWalk;
  #known: readonly KnownKernel[];
  #arena = new Arena();
  #queueTables: QueueTables;
  #processTables: ProcessTables;
  #processes: ProcessWalk;
  #initTask: KernelPointer;
  #queuePointers: KernelPointer[];
  readonly #progress: QueueFields;
  #words: QueueWords | undefined;
  #reset = false;
  #searchAt = -Infinity;
  #searchPause = SEARCH_PAUSE_MS;
  #unsubscribe: () => void;

  private constructor(domain: Domain<FrameNumber>, kernel: IdentifiedKernel, known: readonly KnownKernel[]) {
    const { layout } = kernel;
    this.domain = domain;
    this.kernel = kernel;
    this.#known = known;
    this.taskSlots = taskSlots(layout);
    this.queueSlots = queueSlots(layout);
    this.queuesUnknown = this.queueSlots.unknown;
    const signal = signalSlots(layout);
    const threadInfo = threadInfoSlots(layout);
    this.#queueTables = queueTables(this.#arena, this.queueSlots, this.taskSlots, MAX_TASKS);
    const { tasks } = this.#queueTables;
    this.#processTables = {
      tasks,
      signals: this.#arena.table('signal_struct', signal.shape, MAX_TASKS),
      threadInfos: this.#arena.table('thread_info', threadInfo.shape, MAX_TASKS),
    };
    this.queues = new QueueWalk(this.#arena, this.#queueTables, this.queueSlots, this.taskSlots);
    const slots = { task: this.taskSlots, signal, threadInfo, tickNs: tickLength(kernel, this.taskSlots) };
    this.#processes = new ProcessWalk(this.#arena, this.#processTables, slots);
    this.#initTask = pointer(requireSymbolAddress(kernel, 'init_task'));
    this.#progress = {
      switches: optionalField(layout, 'rq', 'nr_switches'),
      // The tick updates it: the first member in O(1) kernels, the second since "sched: Implement CFS", 2.6.23.
      tick: optionalField(layout, 'rq', 'timestamp_last_tick') ?? optionalField(layout, 'rq', 'clock'),
      curr: requiredField(layout, 'rq', 'curr'),
      idle: requiredField(layout, 'rq', 'idle'),
    };
    this.cpus = onlineCpus(kernel);
    this.#queuePointers = this.cpus.map((cpu) => pointer(percpuVariable(kernel, 'runqueues', cpu)));
    this.#unsubscribe = domain.onEvent((event) => {
      if (event.type === 'reset' || event.type === 'gone') this.#reset = true;
    });
  }

  /**
   * Finds out which kernel runs in a domain and proves on it that the layout is right.
   * @param known kernels whose layouts may be used
   * @throws DomschedError `layout-unknown`, `kernel-unidentified`, `layout-disproved`, `layout-absent-member`,
   *   `domain-gone`, `host-unreachable`
   */
  static async attach(domain: Domain<FrameNumber>, known: readonly KnownKernel[]): Promise<Guest> {
    if (domain.registers === undefined) return Guest.#amongKernels(domain, known);
    const kernel = await identify(domain, known);
    try {
      return await Guest.#tried(domain, kernel, known);
    } catch (error) {
      const isLayout = error instanceof DomschedError && !GONE.has(error.code);
      if (!isLayout || kernel.trial?.refuse === undefined) throw error;
      kernel.trial.refuse(error.message);
      return await Guest.#tried(domain, await identify(domain, known), known);
    }
  }

  static async #tried(domain: Domain<FrameNumber>, kernel: IdentifiedKernel, known: readonly KnownKernel[]) {
    const guest = await Guest.#proved(domain, kernel, known);
    kernel.trial?.accept();
    return guest;
  }

  static async #proved(
    domain: Domain<FrameNumber>,
    kernel: IdentifiedKernel,
    known: readonly KnownKernel[],
  ): Promise<Guest> {
    const guest = new Guest(domain, kernel, known);
    try {
      await guest.prove();
    } catch (error) {
      guest.detach();
      throw error;
    }
    return guest;
  }

  /**
   * Without registers nobody says which of several kernels in memory runs: `kexec` leaves parts of the one before, and a
   * crash all of it. Takes the first that is whole and moves, or else the first that is whole.
   */
  static async #amongKernels(domain: Domain<FrameNumber>, known: readonly KnownKernel[]): Promise<Guest> {
    const passed = new Set<number>();
    let standing: Guest | undefined;
    let failure: unknown;
    while (passed.size < MAX_KERNELS) {
      const found = await identify(domain, known, passed).catch((error: unknown) => {
        failure ??= error;
      });
      const place = found && placeOf(found);
      if (found === undefined || place === undefined || passed.has(place)) break;
      passed.add(place);
      try {
        const kernel = standing === undefined ? found : { ...found, standing: 1 };
        const guest = await Guest.#proved(domain, kernel, known);
        if (await guest.moves()) {
          standing?.detach();
          return guest;
        }
        if (standing === undefined) standing = guest;
        else guest.detach();
      } catch (error) {
        failure ??= error;
      }
    }
    if (standing === undefined) throw failure;
    return standing;
  }

  /** Whether the kernel runs, as far as its memory shows: it moves, or has nothing to do, or the domain stands still. */
  async moves(): Promise<boolean> {
    const { domain } = this;
    if (domain.pause === undefined || (await domain.state()) !== 'running') return true;
    const { count } = this.advance();
    for (
      const end = performance.now() + MOVES_WITHIN_MS;
      performance.now() < end;
      await sleep(MOVES_EVERY_MS)
    ) {
      domain.tick();
      const now = this.advance();
      if (now.idle || now.count !== count) return true;
    }
    return false;
  }

  get layout(): LayoutView {
    return this.kernel.layout;
  }

  get space(): AddressSpace {
    return this.kernel.space;
  }

  /** Ends the subscription to the domain's events. The domain stays open. */
  detach(): void {
    this.#unsubscribe();
  }

  /** Address of a symbol in the running guest. */
  symbol(name: SymbolName): GuestVirtual | undefined {
    return symbolAddress(this.kernel, name);
  }

  /** Address of one CPU's copy of a per-CPU variable. @throws DomschedError `layout-absent-member` */
  percpu(variable: SymbolName, cpu: GuestCpu): GuestVirtual {
    return percpuVariable(this.kernel, variable, cpu);
  }

  /**
   * Checks that the kernel is still the identified one: the domain was not reset, and the banner is where it was.
   * @throws DomschedError `kernel-unidentified` when it is not: attach anew
   */
  verify(): void {
    const { name } = this.domain.identity;
    const banner = symbolAddress(this.kernel, 'linux_banner');
    const same = banner !== undefined && hasBanner(this.space, banner, this.kernel.banner);
    if (!this.#reset && same) return;
    throw new DomschedError('kernel-unidentified', `${name} was restarted: attach to it again`, {
      domain: name,
    });
  }

  /**
   * As {@link verify}, and also checks the vCPUs: `kexec` replaces the kernel without a reset and may leave the old
   * one's memory as it was.
   * @throws DomschedError `kernel-unidentified` when no vCPU runs this kernel: attach anew
   */
  async verifyRuns(): Promise<void> {
    this.verify();
    const all = (await this.domain.registers?.read()) ?? [];
    const awake = all.filter((vcpu) => !hasHaltedForGood(vcpu));
    this.domain.tick();
    const replaced = isRunBy(this.kernel, awake) === false || this.#hasOtherAreas();
    if (!replaced && !(await this.#isAnotherThere())) return;
    const { name } = this.domain.identity;
    throw new DomschedError(
      'kernel-unidentified',
      `${name} runs another kernel than before, without a reset (kexec): attach to it again`,
      { domain: name },
    );
  }

  /** Without registers: whether this kernel stands still, or contradicts itself, and memory holds another one. */
  async #isAnotherThere(): Promise<boolean> {
    if (this.domain.registers !== undefined || performance.now() < this.#searchAt) return false;
    const isWell = await this.#isWell().catch(() => false);
    const place = placeOf(this.kernel);
    if (isWell || place === undefined) return false;
    this.#searchAt = performance.now() + this.#searchPause;
    this.#searchPause *= 2;
    const other = await identify(this.domain, this.#known, new Set([place])).catch(() => undefined);
    return other !== undefined && placeOf(other) !== place;
  }

  async #isWell(): Promise<boolean> {
    if (this.queuesUnknown === undefined) this.watch();
    return this.moves();
  }

  /** Whether a CPU's per-CPU area has moved, which never happens while a kernel runs. */
  #hasOtherAreas(): boolean {
    const before = new Map(this.cpus.map(({ cpu, area }) => [cpu, area]));
    return onlineCpus(this.kernel).some(({ cpu, area }) => (before.get(cpu) ?? area) !== area);
  }

  get known(): readonly KnownKernel[] {
    return this.#known;
  }

  /** Proves the layout on the guest. @throws DomschedError `layout-disproved`, naming the fact */
  async prove(): Promise<readonly Fact[]> {
    this.facts = await prove(this);
    return this.facts;
  }

  /**
   * Looks at the run queues of all CPUs; the result is {@link queues}. Without a pause the look is repeated until it is
   * consistent.
   * @returns number of looks that were thrown away
   * @throws DomschedError `guest-inconsistent` when none of {@link MAX_ATTEMPTS} looks was consistent
   */
  watch(): number {
    return this.#look(() => this.queues.run(this.space, this.#queuePointers));
  }

  /**
   * Whether nothing has run since the last look, so that its result still holds: every CPU idled then, and none has
   * switched tasks since. Cheap, because it reads a few words per CPU.
   */
  isQuiet(): boolean {
    const { queues } = this;
    if (this.#reset || this.#progress.switches === undefined || queues.cpus === 0) return false;
    for (let cpu = 0; cpu < queues.cpus; cpu++) if (queues.curr[cpu] !== queues.idle[cpu]) return false;
    this.domain.tick();
    const words = this.#readWords();
    for (let cpu = 0; cpu < queues.cpus; cpu++)
      if (words.switches(cpu) !== queues.nrSwitches[cpu]) return false;
    return true;
  }

  /**
   * Progress of the guest: `count` differs from an earlier one if any CPU has switched tasks or taken a tick since.
   * Cheap, because it reads a few words per CPU.
   */
  advance(): { readonly count: number; readonly idle: boolean } {
    return this.#readWords().advance();
  }

  /** Words that tell which task is on each CPU, for whoever looks at no more. @throws DomschedError `translation-fault` */
  queueWords(): QueueWords {
    this.#words ??= new QueueWords(this.space, this.#queuePointers.map(pointerAddress), this.#progress);
    return this.#words;
  }

  #readWords(): QueueWords {
    const words = this.queueWords();
    words.read();
    return words;
  }

  /** Number of the process of a task that the last look listed; undefined if it did not. */
  pidOf(task: number): number | undefined {
    const { tasks } = this.#queueTables;
    const index = tasks.find(task);
    const at = index < 0 ? -1 : tasks.copy(index);
    return at < 0 ? undefined : this.#arena.number(at, this.taskSlots.tgid);
  }

  /** All run queues, with their tasks in the order in which the scheduler would pick them. */
  runQueues(): { runQueues: RunQueue[]; retries: number } {
    const retries = this.watch();
    return { runQueues: this.#describeQueues(), retries };
  }

  /**
   * All processes and run queues at one moment.
   * @throws DomschedError `guest-inconsistent`, `walk-unbounded`, `domain-gone`, `host-unreachable`
   */
  snapshot(options: SnapshotOptions = {}): Snapshot {
    if (this.queuesUnknown !== undefined) return this.processesAlone(options);
    let processes: Process[] = [];
    const retries = this.#look(() => {
      this.queues.run(this.space, this.#queuePointers);
      this.#processes.run(this.space, this.#initTask);
      const current = this.queues.curr.subarray(0, this.queues.cpus);
      processes = this.#processes.processes(options.threads ?? false, current);
    }, options);
    const runQueues = options.unlisted ? [] : this.#describeQueues();
    return { processes, runQueues, hasQueues: true, retries, exact: this.#still };
  }

  /**
   * As {@link snapshot}, but gives the guest time when it cannot be read consistently.
   * @throws DomschedError as {@link snapshot}; `capability-missing` for a pause of a domain that cannot be paused
   */
  async take(options: TakeOptions = {}): Promise<Snapshot> {
    const end = performance.now() + (options.limitMs ?? DEFAULT_LIMIT_MS);
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, LAST_WAIT_MS)) {
      try {
        return options.pause ? await this.#takePaused(options) : this.snapshot(options);
      } catch (error) {
        // What a kernel has left behind, and another one uses, may be links without end.
        if (codeOf(error) === 'walk-unbounded') await this.verifyRuns();
        if (codeOf(error) !== 'guest-inconsistent') throw error;
        const hopeless = this.domain.pause === undefined || performance.now() + wait > end;
        if (hopeless && options.withoutQueues) return this.processesAlone(options);
        if (hopeless) {
          await this.verifyRuns();
          throw error;
        }
      }
      await sleep(wait);
    }
  }

  /**
   * All processes without run queues, for when these contradict each other or do not matter.
   * @throws DomschedError as {@link snapshot}
   */
  processesAlone(options: SnapshotOptions = {}): Snapshot {
    let processes: Process[] = [];
    const retries = this.#look(
      () => {
        const onCpu = this.queues.currentTasks(this.space, this.#queuePointers);
        this.#processes.run(this.space, this.#initTask);
        processes = this.#processes.processes(options.threads ?? false, onCpu);
      },
      options,
      false,
    );
    const exact = this.#still && this.torn === undefined;
    return { processes, runQueues: [], hasQueues: false, retries, exact };
  }

  async #takePaused(options: SnapshotOptions): Promise<Snapshot> {
    requireCapabilities(this.domain, 'pause');
    await using _pause = await this.domain.pause.acquire('look');
    return this.snapshot(options);
  }

  #describeQueues(): RunQueue[] {
    return describeQueues(this.queues, this.#queueTables, this.#arena, this.taskSlots, this.cpus);
  }

  /** Whether nothing can change while we read: we have paused the domain, or it is an image. */
  get #still(): boolean {
    return this.domain.pause === undefined || this.domain.pause.depth > 0;
  }

  /** @param queues whether the run queues are read and must be unchanged afterwards */
  #look(read: () => void, { limits }: SnapshotOptions = {}, queues = true): number {
    if (this.#reset) this.verify();
    let last: unknown;
    // One budget for all attempts together.
    const budget = limits && new LookBudget(limits, this.domain.identity.name);
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      this.domain.tick();
      try {
        this.#arena.begin(this.space, budget);
        read();
        if (this.#still || !queues || this.queues.unchanged(this.space)) return attempt;
        last = new DomschedError(
          'guest-inconsistent',
          `${this.domain.identity.name}: its run queues changed during each of ${MAX_ATTEMPTS} looks; use --pause`,
          { domain: this.domain.identity.name },
        );
      } catch (error) {
        last = error;
        // A pointer out of memory may mean that another kernel is there by now.
        if (codeOf(error) !== 'guest-inconsistent' || this.#still) break;
      }
    }
    this.verify();
    throw last;
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof DomschedError ? error.code : undefined;
}

function pointer(address: GuestVirtual): KernelPointer {
  const found = addressPointer(address);
  if (found !== NO_POINTER) return found;
  throw new DomschedError(
    'guest-inconsistent',
    `an object of the guest's kernel would be at ${address.toString(16)}, which is no kernel address`,
    { address },
  );
}

/** Length of a timer tick in ns, for kernels that count CPU time in ticks. */
function tickLength(kernel: IdentifiedKernel, slots: TaskSlots): number {
  if (slots.timeUnit === 'ns') return 1;
  // 2.6.16 keeps it in a variable: HZ itself is a macro.
  return Number(kernel.space.readU64(requireSymbolAddress(kernel, 'tick_nsec')));
}
