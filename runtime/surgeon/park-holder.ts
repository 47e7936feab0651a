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
import { type ParkMembers, parkMembers } from '../technique/park/members.ts';
import { type NiceGuest, niceMembers, Renice } from '../technique/park/nice.ts';
import { Park } from '../technique/park/park.ts';
import { proveCallable } from '../technique/park/proof.ts';
import { niceBits, type ParkBits, parkBits } from '../technique/proved-bits.ts';
import { threadRefusal } from '../technique/refusal.ts';
import type { Step, Technique } from '../technique/step.ts';
import type { GiveBack, Holder, ThreadStanding } from './holder.ts';

/** A CPU's structures that parking reads. */
export interface ParkCpu {
  readonly cpu: number;
  /** Its `rq`. */
  readonly queue: GuestVirtual;
  /** Its `lazy_list`. */
  readonly lazyList: GuestVirtual;
  /** The variable whose padding we borrow for irq works: {@link ParkMembers.irqWorkVariable}. */
  readonly scratch: GuestVirtual;
}

/** What parking must know about one guest. */
export interface ParkGuest {
  readonly members: ParkMembers;
  readonly bits: ParkBits;
  readonly cpus: readonly ParkCpu[];
  /** Address of `__cpu_online_mask`. */
  readonly onlineMask: GuestVirtual;
  /** Addresses of `recalc_sigpending()` and `process_timeout()`. */
  readonly recalcSigpending: GuestVirtual;
  readonly processTimeout: GuestVirtual;
  /** Address of `delayed_put_task_struct()`; undefined if the layout lacks it. */
  readonly putTask: GuestVirtual | undefined;
  readonly nice: NiceGuest;
}

/** @throws DomschedError `layout-absent-member`, `refused` */
export function parkGuest(guest: Guest, constants: Constants): ParkGuest {
  const symbol = (name: SymbolName) => guestVirtual(guest.layout.requireSymbol(name) + guest.kernel.slide);
  const putTask = guest.layout.symbol('delayed_put_task_struct');
  const layout = parkMembers(guest.layout);
  checkNumbers(guest.layout, layout, constants);
  return {
    members: layout,
    bits: parkBits(constants),
    cpus: guest.cpus.map((cpu) => ({
      cpu: cpu.cpu,
      queue: guest.percpu('runqueues', cpu),
      lazyList: guest.percpu('lazy_list', cpu),
      scratch: guest.percpu(layout.irqWorkVariable, cpu),
    })),
    onlineMask: symbol('__cpu_online_mask'),
    recalcSigpending: symbol('recalc_sigpending'),
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
function checkNumbers({ kernel }: LayoutView, { irq_work }: ParkMembers, constants: Constants): void {
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
 * Holds threads of kernels from 5.2 on in the kernel's own freezer trap, whatever they are doing.
 *
 * A thread that sleeps in a system call is held at once: when it wakes it parks before it runs code of its program. A
 * running or ready thread parks on its way back to user mode, at the next interrupt of its CPU.
 */
export class ParkHolder implements Holder {
  readonly techniques: readonly Technique[] = ['park'];
  readonly automatic = this.techniques;
  readonly renicesHeld = true;
  declare readonly refused?: ReadonlyMap<Technique, string>;
  declare readonly shares?: Shares;
  declare readonly sharesRefused?: string;
  readonly #guest: ParkGuest;
  readonly #park: Park;
  /** Wake-ups by the guest itself; other techniques use them too. */
  readonly irqWork: IrqWork;
  readonly #renice: Renice;

  /** @param beside what the kernel offers besides parking, and why not more */
  constructor(guest: ParkGuest, beside: Pick<Holder, 'refused' | 'shares' | 'sharesRefused'> = {}) {
    Object.assign(this, beside);
    this.#guest = guest;
    this.#park = new Park(guest.members, guest.bits, guest.recalcSigpending);
    const { irqWorkHomes } = guest.members;
    const homes = guest.cpus.flatMap(({ scratch }) => irqWorkHomes.map((home) => advance(scratch, home)));
    this.irqWork = new IrqWork(guest.members, guest.processTimeout, homes, guest.cpus.map(listOf));
    this.#renice = new Renice(guest.nice);
  }

  async prepare(domain: Domain, memory: MemoryView): Promise<void> {
    const registers = (await domain.registers?.read()) ?? [];
    const { recalcSigpending, processTimeout, putTask } = this.#guest;
    for (const address of [recalcSigpending, processTimeout, ...(putTask === undefined ? [] : [putTask])]) {
      proveCallable(memory, address, registers, domain.lacksBranchTracking);
    }
  }

  invariants(): Invariant[] {
    return this.#guest.cpus.map((cpu) => ({
      what: `lazy_list[${cpu.cpu}] is a list`,
      check: (memory) => void this.irqWork.works(memory, listOf(cpu)),
    }));
  }

  /**
   * Parking edits no scheduler structure, so scheduler locks do not matter; each plan checks the thread's own locks.
   */
  checkLocks(): void {}

  standing(memory: MemoryView, thread: GuestVirtual): ThreadStanding {
    const state = this.#park.stateOf(memory, thread);
    switch (state) {
      case 'exempt':
        return 'exempt';
      case 'parked':
      case 'stopped':
        return 'held';
      case 'armed':
      case 'entering':
        return this.#park.isAsleep(memory, thread) ? 'held' : 'leaving';
      default:
        if (this.irqWork.progress(memory, thread) === 'pending') return 'changing';
        if (this.#currentOn(memory, thread) !== undefined) return 'running';
        return this.#park.onQueue(memory, thread) ? 'ready' : 'sleeping';
    }
  }

  planHold(draft: Draft, thread: GuestVirtual, techniques: readonly Technique[]): Step | null {
    const state = this.#park.stateOf(draft, thread);
    if (state === 'free' && !techniques.includes('park')) return null;
    if (!this.mayHold(draft, thread)) return null;
    const outcome = [this.#park.planArm(draft, thread)];
    const cpu = this.#currentOn(draft, thread);
    const interrupts = cpu === undefined ? [] : [{ cpu: cpu.cpu, kind: 'reschedule' as const }];
    return { technique: 'park', outcome, interrupts };
  }

  /**
   * Whether a thread may be held now.
   * @returns false if it is held or about to be, or if its wake-up is under way
   * @throws DomschedError `refused` for a thread that the guest itself froze, or that could not be released
   */
  mayHold(memory: MemoryView, thread: GuestVirtual): boolean {
    const state = this.#park.stateOf(memory, thread);
    if (state === 'frozen') {
      throw threadRefusal(thread, 'is frozen by the guest itself (cgroup.freeze)');
    }
    this.irqWork.checkHomes(memory);
    return state === 'free' && this.irqWork.progress(memory, thread) === 'none';
  }

  /**
   * Gives back the last reference to a task that has ended. The guest must drop it, since that frees the task; any
   * thread can do so on its way to user mode.
   */
  planGiveBack(draft: Draft, threads: () => readonly GuestVirtual[]): GiveBack {
    return this.irqWork.planGiveBack(draft, (task) => {
      const { putTask } = this.#guest;
      if (putTask === undefined || !this.#park.isFreeable(draft, task)) return 'never';
      const able = threads().filter((thread) => this.#park.takesWorks(draft, thread));
      const thread = able.find((candidate) => this.#park.onQueue(draft, candidate)) ?? able[0];
      return thread === undefined ? 'later' : () => this.#park.planFree(draft, task, thread, putTask);
    });
  }

  planRelease(draft: Draft, thread: GuestVirtual): Step | 'later' | null {
    switch (this.#park.stateOf(draft, thread)) {
      case 'armed':
        if (this.#park.mayBeEntering(draft, thread)) return 'later';
        if (this.#park.isTrapped(draft, thread))
          return this.#planWake(draft, thread, () => this.#park.planDisarm(draft, thread));
        return { technique: 'park', outcome: [this.#park.planDisarm(draft, thread)] };
      case 'stopped':
        this.#park.checkLocks(draft, thread);
        return { technique: 'park', outcome: [this.#park.planUnflag(draft, thread)] };
      case 'entering':
        // Between its work and the trap its position is unknown; it arrives within microseconds.
        return 'later';
      case 'parked':
        return this.#planWake(draft, thread, () => this.#park.planUnflag(draft, thread));
      case 'exempt':
        return null;
      case 'free':
      case 'frozen':
        return this.irqWork.progress(draft, thread) === 'pending' ? 'later' : null;
    }
  }

  planRenice(draft: Draft, thread: GuestVirtual, nice: number): readonly Invariant[] | 'later' {
    if (this.#park.stateOf(draft, thread) === 'exempt') return [];
    return this.#renice.plan(draft, thread, nice);
  }

  /** @param planFree plans that the woken thread does not re-enter the trap */
  #planWake(draft: Draft, thread: GuestVirtual, planFree: () => Invariant): Step | 'later' {
    this.#park.checkLocks(draft, thread);
    const list = this.listForWork(draft, thread);
    // The wake-up comes first: alone, it only makes the thread check the trap and stay.
    const woken = this.irqWork.planPush(draft, thread, list);
    if (woken === null) return 'later';
    const outcome = [woken, planFree()];
    return { technique: 'park', outcome, interrupts: [{ cpu: list.cpu, kind: 'irq-work' }] };
  }

  #currentOn(memory: MemoryView, thread: GuestVirtual): ParkCpu | undefined {
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

function listOf({ cpu, lazyList }: ParkCpu): LazyList {
  return { cpu, address: lazyList };
}
