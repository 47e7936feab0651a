import type { Constants } from '../code/prove.ts';
import type { Draft } from '../edit/draft.ts';
import type { Invariant } from '../edit/edit.ts';
import { follow } from '../edit/member.ts';
import type { MemoryView } from '../edit/memory-view.ts';
import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { PROCESS_FLAGS } from '../guest/process-walk.ts';
import type { Domain } from '../hypervisor/types.ts';
import type { LayoutView } from '../layout/view.ts';
import type { SymbolName } from '../members/symbols.ts';
import { advance, type GuestVirtual, guestVirtual } from '../memory/address.ts';
import type { Shares } from '../technique/fair/shares.ts';
import { IrqWork, type LazyList } from '../technique/park/irq-work.ts';
import { type WakeMembers, wakeMembers } from '../technique/park/members.ts';
import { type NiceGuest, niceMembers, Renice } from '../technique/park/nice.ts';
import { proveCallable } from '../technique/park/proof.ts';
import { TaskWorks } from '../technique/park/task-works.ts';
import { niceBits, type ThreadBits, threadBits } from '../technique/proved-bits.ts';
import type { Step, Technique } from '../technique/step.ts';
import type { GiveBack, Holder, ThreadStanding } from './holder.ts';

/** A CPU's structures that wake-ups read. */
export interface WakeCpu {
  readonly cpu: number;
  /** Its `rq`. */
  readonly queue: GuestVirtual;
  /** Its `lazy_list`. */
  readonly lazyList: GuestVirtual;
  /** The variable whose padding we borrow for irq works: {@link WakeMembers.irqWorkVariable}. */
  readonly scratch: GuestVirtual;
}

/** What a wake-up by the guest itself, and a new nice value, must know about one guest. */
export interface WakeGuest {
  readonly members: WakeMembers;
  readonly bits: ThreadBits;
  readonly cpus: readonly WakeCpu[];
  /** Address of `__cpu_online_mask`. */
  readonly onlineMask: GuestVirtual;
  /** Address of `process_timeout()`. */
  readonly processTimeout: GuestVirtual;
  /** Address of `delayed_put_task_struct()`; undefined if the layout lacks it. */
  readonly putTask: GuestVirtual | undefined;
  /** False for a guest that makes no calls for us: then none of these functions is used. */
  readonly makesCalls?: boolean;
  readonly nice: NiceGuest;
}

/** @throws DomschedError `layout-absent-member`, `refused` */
export function wakeGuest(guest: Guest, constants: Constants): WakeGuest {
  const symbol = (name: SymbolName) => guestVirtual(guest.layout.requireSymbol(name) + guest.kernel.slide);
  const putTask = guest.layout.symbol('delayed_put_task_struct');
  const layout = wakeMembers(guest.layout);
  checkNumbers(guest.layout, layout, constants);
  return {
    members: layout,
    bits: threadBits(constants),
    cpus: guest.cpus.map((cpu) => ({
      cpu: cpu.cpu,
      queue: guest.percpu('runqueues', cpu),
      lazyList: guest.percpu('lazy_list', cpu),
      scratch: guest.percpu(layout.irqWorkVariable, cpu),
    })),
    onlineMask: symbol('__cpu_online_mask'),
    processTimeout: symbol('process_timeout'),
    putTask: putTask === undefined ? undefined : guestVirtual(putTask + guest.kernel.slide),
    nice: {
      members: niceMembers(guest.layout),
      bits: niceBits(constants),
      fairSchedClass: symbol('fair_sched_class'),
      prioToWeight: symbol('sched_prio_to_weight'),
      prioToWmult: symbol('sched_prio_to_wmult'),
      queues: guest.cpus.map((cpu) => ({ cpu: cpu.cpu, address: guest.percpu('runqueues', cpu) })),
    },
  };
}

/**
 * Compares the kernel's code with what the layout and the list of processes say.
 * @throws DomschedError `refused` where they disagree
 */
function checkNumbers({ kernel }: LayoutView, { irq_work }: WakeMembers, constants: Constants): void {
  const differs = (what: string) =>
    new DomschedError('refused', `${kernel.release}: ${what}; nothing was changed`, {
      release: kernel.release,
    });
  const task = constants.get('process_timer.task');
  if (task !== BigInt(irq_work.task.offset))
    throw differs(`process_timeout() wakes the task at byte ${task}, and its timer_list ends elsewhere`);
  // Kernels before 5.6 have no PR_SET_IO_FLUSHER.
  const flusher = constants.missing(['PR_IO_FLUSHER']) === null ? (['PR_IO_FLUSHER'] as const) : [];
  checkListing(kernel, constants, ['PF_EXITING', 'PF_KTHREAD', ...flusher]);
}

/**
 * Compares the flags by which the guest's processes were listed with those of its code.
 * @throws DomschedError `refused` where they disagree
 */
export function checkListing(
  { release }: Pick<LayoutView['kernel'], 'release'>,
  constants: Constants,
  names: readonly (keyof typeof PROCESS_FLAGS)[],
): void {
  for (const name of names) {
    const found = constants.get(name);
    if (found === BigInt(PROCESS_FLAGS[name])) continue;
    throw new DomschedError(
      'refused',
      `${release}: its processes were read with another ${name} than its code has (0x${found.toString(16)}); nothing was changed`,
      { release },
    );
  }
}

/**
 * What all ways to hold threads of fair schedulers share: it tells what a thread does, has the guest itself wake one, and
 * gives one another nice value. By itself it holds nothing.
 */
export class WakeHolder implements Holder {
  readonly techniques: readonly Technique[] = [];
  get automatic(): readonly Technique[] {
    return this.techniques;
  }
  readonly renicesHeld = true;
  declare readonly refused?: ReadonlyMap<Technique, string>;
  declare readonly shares?: Shares;
  declare readonly sharesRefused?: string;
  readonly #guest: WakeGuest;
  protected readonly works: TaskWorks;
  /** Wake-ups by the guest itself. */
  readonly irqWork: IrqWork;
  readonly #renice: Renice;

  /** @param beside what the kernel offers besides, and why not more */
  constructor(guest: WakeGuest, beside: Pick<Holder, 'refused' | 'shares' | 'sharesRefused'> = {}) {
    Object.assign(this, beside);
    this.#guest = guest;
    this.works = new TaskWorks(guest.members, guest.bits);
    const { irqWorkHomes } = guest.members;
    const homes = guest.cpus.flatMap(({ scratch }) => irqWorkHomes.map((home) => advance(scratch, home)));
    this.irqWork = new IrqWork(guest.members, guest.processTimeout, homes, guest.cpus.map(listOf));
    this.#renice = new Renice(guest.nice);
  }

  async prepare(domain: Domain, memory: MemoryView): Promise<void> {
    const registers = (await domain.registers?.read()) ?? [];
    for (const address of this.calls()) {
      proveCallable(memory, address, registers, domain.lacksBranchTracking);
    }
  }

  /** Functions that the guest is made to call. */
  protected calls(): GuestVirtual[] {
    const { processTimeout, putTask, makesCalls = true } = this.#guest;
    if (!makesCalls) return [];
    return [processTimeout, ...(putTask === undefined ? [] : [putTask])];
  }

  invariants(): Invariant[] {
    return this.#guest.cpus.map((cpu) => ({
      what: `lazy_list[${cpu.cpu}] is a list`,
      check: (memory) => void this.irqWork.works(memory, listOf(cpu)),
    }));
  }

  /** No scheduler structure is edited here, so scheduler locks do not matter; each plan checks the thread's own locks. */
  checkLocks(): void {}

  standing(memory: MemoryView, thread: GuestVirtual): ThreadStanding {
    if (this.works.isExempt(memory, thread)) return 'exempt';
    if (this.irqWork.progress(memory, thread) === 'pending') return 'changing';
    if (this.currentOn(memory, thread) !== undefined) return 'running';
    return this.works.onQueue(memory, thread) ? 'ready' : 'sleeping';
  }

  planHold(_draft: Draft, _thread: GuestVirtual, _techniques: readonly Technique[]): Step | null {
    return null;
  }

  /**
   * Whether a thread may be held now.
   * @returns false if its wake-up is under way
   * @throws DomschedError `refused` for one that could not be released
   */
  mayHold(memory: MemoryView, thread: GuestVirtual): boolean {
    this.irqWork.checkHomes(memory);
    return !this.works.isExempt(memory, thread) && this.irqWork.progress(memory, thread) === 'none';
  }

  /**
   * Gives back the last reference to a task that has ended. The guest must drop it, since that frees the task; any
   * thread can do so on its way to user mode.
   */
  planGiveBack(draft: Draft, threads: () => readonly GuestVirtual[]): GiveBack {
    return this.irqWork.planGiveBack(draft, (task) => {
      const { putTask } = this.#guest;
      if (putTask === undefined || !this.works.isFreeable(draft, task)) return 'never';
      const able = threads().filter((thread) => this.works.areTakenBy(draft, thread));
      const thread = able.find((candidate) => this.works.onQueue(draft, candidate)) ?? able[0];
      return thread === undefined ? 'later' : () => this.works.planFree(draft, task, thread, putTask);
    });
  }

  planRelease(draft: Draft, thread: GuestVirtual): Step | 'later' | null {
    if (this.works.isExempt(draft, thread)) return null;
    return this.irqWork.progress(draft, thread) === 'pending' ? 'later' : null;
  }

  planRenice(draft: Draft, thread: GuestVirtual, nice: number): readonly Invariant[] | 'later' {
    if (this.works.isExempt(draft, thread)) return [];
    return this.#renice.plan(draft, thread, nice);
  }

  protected currentOn(memory: MemoryView, thread: GuestVirtual): WakeCpu | undefined {
    const { curr } = this.#guest.members.rq;
    return this.#guest.cpus.find(({ queue }) => follow(memory, queue, curr) === thread);
  }

  /**
   * Chooses the list for a thread's wake-up: that of an online CPU that soon takes a tick, preferably one that is not
   * idle. See {@link IrqWork.listFor}.
   */
  listForWork(memory: MemoryView, thread: GuestVirtual): LazyList {
    const { curr, idle } = this.#guest.members.rq;
    const online = this.#guest.cpus.filter(({ cpu }) => {
      const byte = memory.word(advance(this.#guest.onlineMask, cpu >> 3), 1);
      return (byte >> BigInt(cpu & 7)) % 2n === 1n;
    });
    const busy = online.find(({ queue }) => follow(memory, queue, curr) !== follow(memory, queue, idle));
    const found = busy ?? online[0];
    if (found !== undefined) return this.irqWork.listFor(memory, thread, listOf(found));
    throw new DomschedError('guest-inconsistent', 'none of the CPUs that the guest had is online', {});
  }
}

function listOf({ cpu, lazyList }: WakeCpu): LazyList {
  return { cpu, address: lazyList };
}
