/**
 * Parking makes a thread wait in the guest's own cgroup-v2 freezer trap (kernel/signal.c, `do_freezer_trap()`). There
 * it holds no lock, and its system call is over or has yet to begin. docs/techniques.md has the whole argument.
 */

import type { Draft } from '../../edit/draft.ts';
import type { Invariant } from '../../edit/edit.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';
import type { ParkBits } from '../proved-bits.ts';
import { threadRefusal } from '../refusal.ts';
import type { ParkMembers } from './members.ts';
import { areEqual, type TaskWorks } from './task-works.ts';

/** How far a thread is on its way into the trap. */
export type ParkState =
  /** It does not run code of its process, or will not again. */
  | 'exempt'
  /** Not asked to park. */
  | 'free'
  /** Asked to park; its work has not run. A thread that was stopped, or is leaving the trap, gets there without it. */
  | 'armed'
  /** Between `armed` and the trap. */
  | 'entering'
  /** It sleeps in the trap. */
  | 'parked'
  /** The guest's job control or a tracer stopped it, in a loop that ends in the trap. */
  | 'stopped'
  /** The guest's own freezer holds it. */
  | 'frozen';

export class Park {
  readonly #members: ParkMembers;
  readonly #bits: ParkBits;
  readonly #works: TaskWorks;
  readonly #func: GuestVirtual;

  /** @param func address of `recalc_sigpending()` in the guest */
  constructor(members: ParkMembers, bits: ParkBits, works: TaskWorks, func: GuestVirtual) {
    this.#members = members;
    this.#bits = bits;
    this.#works = works;
    this.#func = func;
  }

  stateOf(memory: MemoryView, task: GuestVirtual): ParkState {
    const { task_struct } = this.#members;
    if (this.#works.isExempt(memory, task)) return 'exempt';
    if (this.#guestFreezes(memory, task)) return 'frozen';
    if ((get(memory, task, task_struct.jobctl) & this.#bits.trapFreeze) === 0n) return 'free';
    if (this.#works.list(memory, task).includes(this.workOf(task))) return 'armed';
    if (this.#isOut(memory, task) && this.#bits.stopped.includes(get(memory, task, task_struct.state)))
      return 'stopped';
    return this.isTrapped(memory, task) ? 'parked' : 'entering';
  }

  /** Whether a thread sleeps in the trap, perhaps with a work that came too late to run. */
  isTrapped(memory: MemoryView, task: GuestVirtual): boolean {
    return this.#isOut(memory, task) && this.#hasTrapState(memory, task);
  }

  /** Whether a thread is between the trap's look at `jobctl` and its sleep, or at that point of any other wait. */
  mayBeEntering(memory: MemoryView, task: GuestVirtual): boolean {
    return this.#hasTrapState(memory, task) && !this.isTrapped(memory, task) && !this.isAsleep(memory, task);
  }

  /** Whether a thread sleeps or is about to: `__state` is not TASK_RUNNING, and it is off its CPU and run queue. */
  isAsleep(memory: MemoryView, task: GuestVirtual): boolean {
    const { task_struct } = this.#members;
    if (get(memory, task, task_struct.state) === 0n || get(memory, task, task_struct.on_cpu) !== 0n)
      return false;
    const delayed = task_struct.sched_delayed;
    return (
      get(memory, task, task_struct.on_rq) === 0n ||
      (delayed !== undefined && get(memory, task, delayed) !== 0n)
    );
  }

  /** Address of a task's forged work. */
  workOf(task: GuestVirtual): GuestVirtual {
    return advance(task, this.#members.workHome);
  }

  /**
   * Plans that a free thread parks at its next return to user mode.
   * @returns what must hold afterwards
   * @throws DomschedError `lock-held`; `refused` for a task under a tracer, or whose padding is in use
   */
  planArm(draft: Draft, task: GuestVirtual): Invariant {
    const { task_struct, callback_head } = this.#members;
    const refuse = (why: string) => threadRefusal(task, why);
    if (get(draft, task, task_struct.ptrace) !== 0n) throw refuse('is under a tracer');
    const { fpu } = this.#members;
    // The `fpstate` whose padding we use must be where the layout says, and be the thread's only one.
    if (fpu !== null && follow(draft, task, fpu.fpstate) !== advance(task, fpu.own))
      throw refuse('has its floating point registers in memory of their own');
    this.#works.checkLocks(draft, task);
    const work = this.workOf(task);
    const works = this.#works.list(draft, task);
    const left = follow(draft, work, callback_head.func);
    // A child forked from a task that was being parked has a copy of its words.
    if (left !== this.#func && (left !== 0n || follow(draft, work, callback_head.next) !== 0n)) {
      throw refuse(`has padding at ${this.#members.workHome} that is in use`);
    }
    if (works.includes(work) && left !== this.#func)
      throw inconsistent(`task ${formatAddress(task)} has a work in our place that is not ours`);
    // In this order every prefix is harmless: first a work that nothing leads to, then a work that has nothing to do. One
    // of a release that ended halfway may still be there.
    if (!works.includes(work)) this.#works.plan(draft, task, work, this.#func, 'recalc_sigpending');
    this.#works.planNotify(draft, task);
    const jobctl = get(draft, task, task_struct.jobctl);
    put(draft, task, task_struct.jobctl, jobctl | this.#bits.trapFreeze, 'task.jobctl (JOBCTL_TRAP_FREEZE)');
    return this.#armed(task, works.includes(work) ? works : [work, ...works]);
  }

  /**
   * Plans that a thread which has not reached the trap does not go there.
   * @returns what must hold afterwards
   * @throws DomschedError `lock-held`
   */
  planDisarm(draft: Draft, task: GuestVirtual): Invariant {
    const { task_struct, callback_head } = this.#members;
    this.#works.checkLocks(draft, task);
    const work = this.workOf(task);
    const works = this.#works.list(draft, task);
    const at = works.indexOf(work);
    const next = follow(draft, work, callback_head.next);
    // First the trap: without it the work has nothing to do, but without the work a thread may never reach the trap.
    this.#planUntrap(draft, task);
    if (at === 0) put(draft, task, task_struct.task_works, next, 'task.task_works');
    else put(draft, works[at - 1]!, callback_head.next, next, 'callback_head.next of the work before');
    this.#planClear(draft, task);
    return this.#freed(
      task,
      works.filter((other) => other !== work),
    );
  }

  /**
   * Plans that a thread in the trap, or one stopped before it, does not go back there when it runs again. Its work has
   * run, so its words are given back.
   * @returns what must hold afterwards
   */
  planUnflag(draft: Draft, task: GuestVirtual): Invariant {
    this.#planUntrap(draft, task);
    this.#planClear(draft, task);
    return this.#freed(task, this.#works.list(draft, task));
  }

  #planUntrap(draft: Draft, task: GuestVirtual): void {
    const { jobctl } = this.#members.task_struct;
    const value = get(draft, task, jobctl) & ~this.#bits.trapFreeze;
    put(draft, task, jobctl, value, 'task.jobctl (JOBCTL_TRAP_FREEZE)');
  }

  /** Invariant: a thread has everything it needs to park, and exactly these works wait for it. */
  #armed(task: GuestVirtual, works: readonly GuestVirtual[]): Invariant {
    const what = `task ${formatAddress(task)} parks when it returns to user mode`;
    const waiting = this.#works.waiting(task, works, this.#func);
    return {
      what,
      check: (memory) => {
        waiting.check(memory);
        if (this.stateOf(memory, task) !== 'armed') throw inconsistent(`not so: ${what}`);
      },
    };
  }

  /** Invariant: nothing of a park is left, though the thread may still sleep in the trap. */
  #freed(task: GuestVirtual, works: readonly GuestVirtual[]): Invariant {
    const what = `task ${formatAddress(task)} is not asked to park`;
    return {
      what,
      check: (memory) => {
        const { callback_head } = this.#members;
        const work = this.workOf(task);
        const holds =
          this.stateOf(memory, task) === 'free' &&
          areEqual(this.#works.list(memory, task), works) &&
          follow(memory, work, callback_head.func) === 0n &&
          follow(memory, work, callback_head.next) === 0n;
        if (!holds) throw inconsistent(`not so: ${what}`);
      },
    };
  }

  #planClear(draft: Draft, task: GuestVirtual): void {
    const { callback_head } = this.#members;
    const work = this.workOf(task);
    put(draft, work, callback_head.next, 0n, 'callback_head.next (given back)');
    put(draft, work, callback_head.func, 0n, 'callback_head.func (given back)');
  }

  /** Whether the freezer counts a thread and it is off its CPU. */
  #isOut(memory: MemoryView, task: GuestVirtual): boolean {
    const { task_struct } = this.#members;
    const frozen = (get(memory, task, task_struct.frozen) & task_struct.frozenMask) !== 0n;
    return frozen && get(memory, task, task_struct.on_cpu) === 0n;
  }

  #hasTrapState(memory: MemoryView, task: GuestVirtual): boolean {
    return get(memory, task, this.#members.task_struct.state) === this.#bits.trapState;
  }

  #guestFreezes(memory: MemoryView, task: GuestVirtual): boolean {
    const { task_struct, css_set, cgroup } = this.#members;
    const set = follow(memory, task, task_struct.cgroups);
    return get(memory, follow(memory, set, css_set.dfl_cgrp), cgroup.e_freeze) !== 0n;
  }
}
