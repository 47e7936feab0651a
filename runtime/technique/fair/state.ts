import type { Draft } from '../../edit/draft.ts';
import type { Invariant } from '../../edit/edit.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { get, put } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import type { VcpuRegisters } from '../../hypervisor/types.ts';
import { formatAddress, type GuestVirtual } from '../../memory/address.ts';
import type { IrqWork, LazyList } from '../park/irq-work.ts';
import type { ProvedStateBits } from '../proved-bits.ts';
import { threadRefusal } from '../refusal.ts';
import type { Step } from '../step.ts';
import type { FairSurgery } from './fair.ts';
import type { FairCpu, FairGuest } from './members.ts';
import { Resched } from './resched.ts';
import { isAtUserBorder } from './user-border.ts';

/** A running or ready thread has this state (include/linux/sched.h). */
const TASK_RUNNING = 0n;
const USER_MODE = 3;

/**
 * Holds a running or ready thread by a state that makes the guest's own `schedule()` take it off its queue on the way
 * to user mode, and releases it by the guest's own wake-up. The guest itself keeps queues, load and pressure right.
 *
 * The state is TASK_PARKED, which only kernel threads use, so no signal or wake-up by a program reaches such a thread.
 * It is written only to a thread that is in user mode or was preempted on the way there; one in the kernel might be
 * about to sleep with a lock.
 */
export class FairState {
  readonly #guest: FairGuest;
  readonly #bits: ProvedStateBits;
  readonly #fair: FairSurgery;
  readonly #irqWork: IrqWork;
  readonly #resched: Resched;
  #vcpus: ReadonlyMap<number, VcpuRegisters> = new Map();

  constructor(guest: FairGuest, bits: ProvedStateBits, fair: FairSurgery, irqWork: IrqWork) {
    this.#guest = guest;
    this.#bits = bits;
    this.#fair = fair;
    this.#irqWork = irqWork;
    this.#resched = new Resched(guest.members, bits);
  }

  /** Takes the vCPUs of this pause, keyed by the kernel's number of the CPU that each is proved to be. */
  observe(vcpus: ReadonlyMap<number, VcpuRegisters>): void {
    this.#vcpus = vcpus;
  }

  /** Whether a thread has the state of a hold, effective or not. */
  isMarked(memory: MemoryView, thread: GuestVirtual): boolean {
    return get(memory, thread, this.#guest.members.task_struct.state) === this.#bits.parked;
  }

  /** Whether it took itself off its queue; EEVDF may keep it there for a while as asleep. */
  isHeld(memory: MemoryView, thread: GuestVirtual): boolean {
    return this.isMarked(memory, thread) && this.#isAsleep(memory, thread);
  }

  /**
   * Plans that a thread takes itself off its queue when it next comes to user mode.
   * @returns null where we cannot tell that it holds nothing in the kernel
   * @throws DomschedError `lock-held`; `refused` for one that runs where no vCPU is known, or that is of another class than
   *   its policy says
   */
  planHold(draft: Draft, thread: GuestVirtual): Step | null {
    const { task_struct } = this.#guest.members;
    if (this.#fair.isElsewhere(draft, thread))
      throw threadRefusal(
        thread,
        'is in no fair queue, though its policy is an ordinary one: the guest has loaded a scheduler (sched_ext), or boosts it for a lock; hold it by park',
      );
    this.#fair.checkLocks(draft, thread);
    if (get(draft, thread, task_struct.state) !== TASK_RUNNING) return null;
    const cpu = this.#fair.currentOn(draft, thread);
    if (cpu === undefined) {
      if (!this.#fair.isReady(draft, thread) || !isAtUserBorder(this.#guest, draft, thread)) return null;
      if (!this.#resched.comesStraightBack(draft, thread)) return null;
      this.#resched.planFlag(draft, thread);
    } else {
      // Only the registers of that very CPU tell what the thread is doing.
      if (this.#vcpus.size === 0) {
        throw threadRefusal(
          thread,
          'runs, and no vCPU can be proved to be a CPU of the kernel: nobody knows what it is doing, so hold it another way',
        );
      }
      if (!this.#isInUserMode(cpu)) return null;
      this.#resched.planInUserMode(draft, cpu, thread);
    }
    put(draft, thread, task_struct.state, this.#bits.parked, 'task.__state (TASK_PARKED)');
    const outcome = [this.#marked(thread, cpu)];
    const interrupts = cpu === undefined ? [] : [{ cpu: cpu.cpu, kind: 'reschedule' as const }];
    return { technique: 'state', outcome, interrupts };
  }

  /**
   * Plans to ask a marked thread again. A preemption inside the kernel clears the request to reschedule and leaves the
   * thread queued (kernel/sched/core.c, `__schedule(SM_PREEMPT)`); if it is alone on its CPU, nothing else would make
   * it call `schedule()` again.
   * @returns null while the request still stands or the thread is in the kernel
   * @throws DomschedError `lock-held`
   */
  planAgain(draft: Draft, thread: GuestVirtual): Step | null {
    const cpu = this.#fair.currentOn(draft, thread);
    if (cpu === undefined || get(draft, thread, this.#guest.members.task_struct.on_rq) === 0n) return null;
    if (this.#resched.isAsked(draft, thread) || !this.#isInUserMode(cpu)) return null;
    this.#fair.checkLocks(draft, thread);
    this.#resched.planInUserMode(draft, cpu, thread);
    const interrupts = [{ cpu: cpu.cpu, kind: 'reschedule' as const }];
    return { technique: 'state', outcome: [this.#marked(thread, cpu)], interrupts };
  }

  /**
   * Plans that the guest wakes a thread that took itself off; a thread that has not done so yet gets its state back.
   * @returns `later` for a thread between the two
   * @throws DomschedError `lock-held`; `refused` when the words for the wake-up are not proved to be free
   */
  planRelease(draft: Draft, thread: GuestVirtual, list: LazyList): Step | 'later' {
    const { task_struct } = this.#guest.members;
    this.#fair.checkLocks(draft, thread);
    if (this.#isAsleep(draft, thread)) {
      const woken = this.#irqWork.planPush(draft, thread, list);
      if (woken === null) return 'later';
      put(draft, thread, task_struct.state, this.#bits.wakeable, 'task.__state (TASK_INTERRUPTIBLE)');
      const outcome = [woken, this.#inState(thread, this.#bits.wakeable)];
      return { technique: 'state', outcome, interrupts: [{ cpu: list.cpu, kind: 'irq-work' }] };
    }
    // It is off its queue but still on its CPU: inside schedule(), about to sleep.
    if (get(draft, thread, task_struct.on_rq) === 0n) return 'later';
    put(draft, thread, task_struct.state, TASK_RUNNING, 'task.__state');
    return { technique: 'state', outcome: [this.#inState(thread, TASK_RUNNING)] };
  }

  #isInUserMode({ cpu }: FairCpu): boolean {
    return this.#vcpus.get(cpu)?.cpl === USER_MODE;
  }

  #isAsleep(memory: MemoryView, thread: GuestVirtual): boolean {
    const { task_struct, sched_entity } = this.#guest.members;
    if (get(memory, thread, task_struct.on_cpu) !== 0n) return false;
    if (this.#fair.currentOn(memory, thread) !== undefined) return false;
    if (get(memory, thread, task_struct.on_rq) === 0n) return true;
    const { sched_delayed } = sched_entity;
    const entity = (thread + BigInt(task_struct.se)) as GuestVirtual;
    return sched_delayed !== undefined && get(memory, entity, sched_delayed) !== 0n;
  }

  /** @param cpu the CPU that runs the thread */
  #marked(thread: GuestVirtual, cpu: FairCpu | undefined): Invariant {
    const state = this.#inState(thread, this.#bits.parked);
    return {
      what: state.what,
      check: (memory) => {
        state.check(memory);
        this.#resched.checkAsked(memory, thread, cpu);
      },
    };
  }

  #inState(thread: GuestVirtual, state: bigint): Invariant {
    const what = `task ${formatAddress(thread)} has state ${state}`;
    return {
      what,
      check: (memory) => {
        const found = get(memory, thread, this.#guest.members.task_struct.state);
        if (found !== state) throw inconsistent(`not so: ${what}; it is ${found}`);
      },
    };
  }
}
