/**
 * Makes the guest call `wake_up_process()` by itself: an `irq_work` that we put on a CPU's `lazy_list` (kernel/irq_work.c).
 * That CPU runs it at its next timer tick, or at once with the irq-work interrupt. Its function is the kernel's own
 * `process_timeout()`, which wakes the task that stands behind a `timer_list`.
 */
import { DomschedError } from '../error.ts';
import { advance, formatAddress, type GuestVirtual } from '../memory/address.ts';
import type { Draft } from './draft.ts';
import type { Invariant } from './edit.ts';
import { inconsistent } from './inconsistent.ts';
import { follow, get, put } from './member.ts';
import type { MemoryView } from './memory-view.ts';
import type { ParkLayout } from './park-layout.ts';
import { threadRefusal } from './refusal.ts';

/** Works that wait on one CPU at most: it bounds the walk. */
const MAX_WORKS = 4_096;

/** `task->stack` ends with this word (include/uapi/linux/magic.h, STACK_END_MAGIC). */
const STACK_END_MAGIC = 0x57ac_6e9dn;
/** Bytes kept clear above that word. */
const STACK_MARGIN = 16;
/** How far from the end of its stack a sleeping task must be, and the largest kernel stack there is, in bytes. */
const STACK_DISTANCE = 4_096n;
const MAX_STACK = 65_536n;

/** What became of a wake-up that was asked for. */
export type WakeUp =
  /** None was asked for. */
  | 'none'
  /** A CPU has yet to run it, or is running it now. */
  | 'pending'
  /** It ran; its words are still claimed. */
  | 'done';

/** One CPU's list of works for its next tick. */
export interface LazyList {
  readonly cpu: number;
  /** Of the `llist_head`. */
  readonly address: GuestVirtual;
}

export class IrqWork {
  readonly #layout: ParkLayout;
  readonly #wake: GuestVirtual;

  /** @param wake address of `process_timeout()` in the guest */
  constructor(layout: ParkLayout, wake: GuestVirtual) {
    this.#layout = layout;
    this.#wake = wake;
  }

  /** Where a task's forged work is: in a hole of its `task_struct`, else at the far end of its kernel stack. */
  home(memory: MemoryView, task: GuestVirtual): GuestVirtual {
    const { irqWorkHome, task_struct } = this.#layout;
    if (irqWorkHome !== null) return advance(task, irqWorkHome);
    return advance(follow(memory, task, task_struct.stack), STACK_MARGIN);
  }

  /** @throws DomschedError `translation-fault` */
  progress(memory: MemoryView, task: GuestVirtual): WakeUp {
    const { irq_work } = this.#layout;
    const work = this.home(memory, task);
    // A hole of a forked child holds what its parent's held: the task tells them apart.
    if (follow(memory, work, irq_work.func) !== this.#wake) return 'none';
    if (follow(memory, work, irq_work.task) !== task) return 'none';
    return (get(memory, work, irq_work.flags) & irq_work.active) === 0n ? 'done' : 'pending';
  }

  /**
   * Plans to have a CPU wake a task.
   * @returns what has to be so afterwards
   * @throws DomschedError `refused` when the words that this takes are not proved to be free
   */
  planPush(draft: Draft, task: GuestVirtual, list: LazyList): Invariant {
    const { irq_work } = this.#layout;
    const work = this.home(draft, task);
    this.#proveFree(draft, task, work);
    const before = this.works(draft, list);
    if (before.includes(work))
      throw inconsistent(`lazy_list[${list.cpu}] has our work, which does not look like one`);
    const first = draft.pointer(list.address);
    put(draft, work, irq_work.next, first, 'irq_work.node.llist.next');
    put(draft, work, irq_work.flags, irq_work.active | irq_work.lazy, 'irq_work.node.flags');
    put(draft, work, irq_work.func, this.#wake, 'irq_work.func (process_timeout)');
    // Read by PREEMPT_RT kernels: nobody waits for the work.
    put(draft, work, irq_work.irqwait, 0n, 'irq_work.irqwait');
    put(draft, work, irq_work.task, task, 'process_timer.task');
    // The list's head last: until then nothing leads to the work.
    draft.set(list.address, 8, work, `lazy_list[${list.cpu}].first`);
    return this.#pushed(task, list, [work, ...before]);
  }

  /** Plans to give back the words of a wake-up that is done. @returns what has to be so afterwards */
  planClear(draft: Draft, task: GuestVirtual): Invariant {
    const { irq_work } = this.#layout;
    const work = this.home(draft, task);
    for (const name of ['next', 'flags', 'func', 'irqwait', 'task'] as const) {
      put(draft, work, irq_work[name], 0n, `irq_work.${name} (given back)`);
    }
    return this.#cleared(task);
  }

  /** Works that wait on a CPU. @throws DomschedError `walk-unbounded` */
  works(memory: MemoryView, list: LazyList): GuestVirtual[] {
    const found: GuestVirtual[] = [];
    for (let work = memory.pointer(list.address); work !== 0n; ) {
      if (found.length === MAX_WORKS) {
        throw new DomschedError('walk-unbounded', `lazy_list[${list.cpu}] has no end`, { cpu: list.cpu });
      }
      found.push(work);
      work = follow(memory, work, this.#layout.irq_work.next);
    }
    return found;
  }

  /** That a CPU is going to wake the task. Works of other threads may have been put before it in the same edit. */
  #pushed(task: GuestVirtual, list: LazyList, works: readonly GuestVirtual[]): Invariant {
    const what = `lazy_list[${list.cpu}] has a work that wakes task ${formatAddress(task)}`;
    return {
      what,
      check: (memory) => {
        const { irq_work } = this.#layout;
        const work = this.home(memory, task);
        const flags = irq_work.active | irq_work.lazy;
        const ready =
          this.progress(memory, task) === 'pending' &&
          get(memory, work, irq_work.flags) === flags &&
          get(memory, work, irq_work.irqwait) === 0n;
        const found = this.works(memory, list);
        const linked =
          found.length >= works.length && found.slice(-works.length).every((w, i) => w === works[i]);
        if (!ready || !linked) throw inconsistent(`not so: ${what}`);
      },
    };
  }

  /** That the words of a wake-up are free again. */
  #cleared(task: GuestVirtual): Invariant {
    const what = `the words of the wake-up of task ${formatAddress(task)} are given back`;
    return {
      what,
      check: (memory) => {
        if (!this.#isClear(memory, this.home(memory, task))) throw inconsistent(`not so: ${what}`);
      },
    };
  }

  /**
   * What we left, or a parent's that a fork copied, is free; anything else that isn't zero is somebody's. At the
   * stack's end only zeros are free: the kernel clears a stack before use, so no frame ever came that far, and the
   * task has to be asleep far from there.
   */
  #proveFree(memory: MemoryView, task: GuestVirtual, work: GuestVirtual): void {
    const { irqWorkHome, irq_work, task_struct } = this.#layout;
    const refuse = (why: string) => threadRefusal(task, why);
    if (irqWorkHome !== null) {
      if (this.#isClear(memory, work) || follow(memory, work, irq_work.func) === this.#wake) return;
      throw refuse(`has padding at ${irqWorkHome} that is in use`);
    }
    const end = follow(memory, task, task_struct.stack);
    const above = get(memory, task, task_struct.sp) - end;
    if (memory.word(end, 8) !== STACK_END_MAGIC) throw refuse('has a kernel stack without an end mark');
    if (above < STACK_DISTANCE || above > MAX_STACK) throw refuse('has nearly used up its kernel stack');
    if (!this.#isClear(memory, work)) throw refuse('has used the end of its kernel stack');
  }

  #isClear(memory: MemoryView, work: GuestVirtual): boolean {
    const bytes = memory.block(work, this.#layout.irq_work.size);
    for (let at = 0; at < bytes.byteLength; at += 4) if (bytes.getUint32(at, true) !== 0) return false;
    return true;
  }
}
