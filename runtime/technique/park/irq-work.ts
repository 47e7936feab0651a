/**
 * Makes the guest itself call `wake_up_process()`, by an `irq_work` that we put on a CPU's `lazy_list`
 * (kernel/irq_work.c). That CPU runs it at its next timer tick, or at once if it gets an irq-work interrupt. The work's
 * function is the kernel's own `process_timeout()`, which wakes the task stored behind a `timer_list`.
 *
 * An idle CPU without a tick may run the work much later, and holds back no RCU grace period until then. So nothing the
 * work uses may go away meanwhile: its words are in padding of a CPU's run queue, which the kernel never frees, and we
 * take a reference to the task, as the kernel does for every pointer that it keeps.
 */

import type { Draft } from '../../edit/draft.ts';
import type { Invariant } from '../../edit/edit.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import { formatAddress, type GuestVirtual } from '../../memory/address.ts';
import { threadRefusal } from '../refusal.ts';
import type { WakeMembers } from './members.ts';

/** Most works that may wait on one CPU. Kernels have a handful, and every CPU's list is walked in a pause. */
const MAX_WORKS = 128;

/** Counts from here on are not trusted: others may add to them until they saturate (include/linux/refcount.h). */
const MAX_REFERENCES = 0x4000_0000n;

/** Progress of a wake-up. */
export type WakeUp =
  /** No wake-up was asked for. */
  | 'none'
  /** A CPU has yet to run it, or is running it now. */
  | 'pending'
  /** It ran; its words are still claimed. */
  | 'done';

/** One CPU's list of works for its next tick. */
export interface LazyList {
  readonly cpu: number;
  /** Address of the `llist_head`. */
  readonly address: GuestVirtual;
}

/** Result of a plan that gives back the words and references of finished wake-ups. */
export interface GivenBack {
  readonly outcome: readonly Invariant[];
  /** Wake-ups that a CPU has yet to run. */
  readonly pending: number;
  /** Tasks that have ended, have only our reference left, and cannot be freed by anyone. */
  readonly kept: number;
}

/** Decides about a task that has ended and has only our reference left: the function returned plans to free it. */
export type FreeLast = (task: GuestVirtual) => (() => Invariant) | 'later' | 'never';

export class IrqWork {
  readonly #members: WakeMembers;
  readonly #wake: GuestVirtual;
  readonly #homes: readonly GuestVirtual[];
  readonly #lists: readonly LazyList[];
  /** References to tasks at the end of a whole plan: one edit may give back a wake-up and ask for the next. */
  readonly #references = new WeakMap<Draft, Map<GuestVirtual, bigint>>();

  /**
   * @param wake address of `process_timeout()` in the guest
   * @param homes places for our words, one wake-up in each
   * @param lists lists of all CPUs
   */
  constructor(
    members: WakeMembers,
    wake: GuestVirtual,
    homes: readonly GuestVirtual[],
    lists: readonly LazyList[],
  ) {
    this.#members = members;
    this.#wake = wake;
    this.#homes = homes;
    this.#lists = lists;
  }

  /** @throws DomschedError `translation-fault` */
  progress(memory: MemoryView, task: GuestVirtual): WakeUp {
    const works = this.#worksFor(memory, task);
    if (works.length === 0) return 'none';
    return works.some((work) => this.#isActive(memory, work)) ? 'pending' : 'done';
  }

  /**
   * Chooses the list for a task's wake-up: the list of an earlier wake-up that may have got lost, if there is one. A
   * CPU runs its works one after the other, so the end of the new one proves what became of the old.
   */
  listFor(memory: MemoryView, task: GuestVirtual, otherwise: LazyList): LazyList {
    const [lost] = this.#worksFor(memory, task).filter((work) => this.#isOffList(memory, work));
    return (lost === undefined ? undefined : this.#listOf(memory, lost)) ?? otherwise;
  }

  /**
   * Refuses a hold that could not be released.
   * @throws DomschedError `refused` when the guest uses all places for our words
   */
  checkHomes(memory: MemoryView): void {
    if (this.#homes.some((work) => this.#isClear(memory, work) || this.#isOurs(memory, work))) return;
    throw new DomschedError(
      'refused',
      'the padding of its run queues is in use: no process of this guest could be released; nothing was changed',
      {},
    );
  }

  /**
   * Plans to have a CPU wake a task. A task may be woken twice: if the words of an earlier wake-up are on no list,
   * either a CPU has just taken them or the edit ended before they were linked, and we cannot tell which.
   * @param list as {@link listFor} gives it
   * @returns what must hold afterwards; null while other wake-ups take all places
   * @throws DomschedError `refused` for a task with an implausible reference count, and as {@link checkHomes}
   */
  planPush(draft: Draft, task: GuestVirtual, list: LazyList): Invariant | null {
    const { irq_work, task_struct } = this.#members;
    this.checkHomes(draft);
    const work = this.#homes.find((home) => this.#isClear(draft, home));
    const asked = this.#worksFor(draft, task);
    if (work === undefined || !asked.every((other) => this.#isOffList(draft, other))) return null;
    const references = get(draft, task, task_struct.usage);
    if (references === 0n || references >= MAX_REFERENCES)
      throw threadRefusal(task, `has ${references} references, which no task has`);
    const before = this.works(draft, list);
    if (before.includes(work))
      throw inconsistent(`lazy_list[${list.cpu}] has our work, which does not look like one`);
    const first = draft.pointer(list.address);
    // The order matters if the edit ends halfway. The function is first, because it marks the words as ours. The
    // reference comes before the pointer to the task. The list's head is last: until then nothing leads to the work.
    put(draft, work, irq_work.func, this.#wake, 'irq_work.func (process_timeout)');
    if (irq_work.list !== undefined)
      put(draft, work, irq_work.list, list.address, 'the list that it goes onto');
    put(draft, work, irq_work.next, first, 'irq_work.node.llist.next');
    // PREEMPT_RT kernels read it; 0 means that nobody waits for the work.
    if (irq_work.irqwait !== undefined) put(draft, work, irq_work.irqwait, 0n, 'irq_work.irqwait');
    this.#planReferences(draft, task, references + 1n, 'a reference for the wake-up');
    put(draft, work, irq_work.task, task, 'process_timer.task');
    put(draft, work, irq_work.flags, irq_work.active | irq_work.lazy, 'irq_work.node.flags');
    draft.set(list.address, 8, work, `lazy_list[${list.cpu}].first`);
    return this.#pushed(draft, task, list, [work, ...before]);
  }

  /** Plans to give back everything that finished wake-ups have taken, whoever asked for them. */
  planGiveBack(draft: Draft, freeLast: FreeLast): GivenBack {
    const { usage } = this.#members.task_struct;
    const outcome: Invariant[] = [];
    let [pending, kept] = [0, 0];
    const unlinked = this.#homes.filter((work) => this.#isProvedLost(draft, work));
    const lost = new Set(unlinked.map((work) => this.#taskOf(draft, work)));
    // These are cleared before the work that proves them lost, which the next look gives back.
    for (const work of unlinked) {
      const task = this.#taskOf(draft, work)!;
      const references = get(draft, task, usage);
      const isCount = references > 1n && references < MAX_REFERENCES;
      this.#planClear(draft, work);
      this.#planReferences(
        draft,
        task,
        isCount ? references - 1n : references,
        'that of the lost wake-up less',
      );
      outcome.push(this.#cleared(draft, work, task));
    }
    for (const work of this.#homes) {
      const task = this.#taskOf(draft, work);
      if (task === undefined) {
        // An edit ended among these words.
        if (this.#isOurs(draft, work)) this.#planClear(draft, work);
        continue;
      }
      const references = get(draft, task, usage);
      const others = references > 1n && references < MAX_REFERENCES;
      const isUsed = this.#isActive(draft, work) || lost.has(task);
      const free = isUsed ? 'later' : others ? null : freeLast(task);
      if (free === 'later') {
        pending += 1;
        continue;
      }
      // The words are cleared first: nothing of ours may lead to a task that the guest is about to free.
      this.#planClear(draft, work);
      this.#planReferences(draft, task, others ? references - 1n : references, 'that of the wake-up less');
      outcome.push(this.#cleared(draft, work, task));
      if (free === 'never') kept += 1;
      else if (free !== null) outcome.push(free());
    }
    return { outcome, pending, kept };
  }

  /** Works that wait on a CPU. @throws DomschedError `walk-unbounded` */
  works(memory: MemoryView, list: LazyList): GuestVirtual[] {
    const found: GuestVirtual[] = [];
    for (let work = memory.pointer(list.address); work !== 0n; ) {
      if (found.length === MAX_WORKS) {
        throw new DomschedError(
          'walk-unbounded',
          `lazy_list[${list.cpu}] has more than ${MAX_WORKS} works, or no end: nothing is done to it`,
          {
            cpu: list.cpu,
            limit: MAX_WORKS,
          },
        );
      }
      found.push(work);
      work = follow(memory, work, this.#members.irq_work.next);
    }
    return found;
  }

  /** Invariant: a CPU is going to wake the task. The same edit may have put works of other threads before it. */
  #pushed(draft: Draft, task: GuestVirtual, list: LazyList, works: readonly GuestVirtual[]): Invariant {
    const what = `lazy_list[${list.cpu}] has a work that wakes task ${formatAddress(task)}`;
    return {
      what,
      check: (memory) => {
        const { irq_work } = this.#members;
        const work = works[0]!;
        const flags = irq_work.active | irq_work.lazy;
        const ready =
          this.#taskOf(memory, work) === task &&
          (irq_work.list === undefined || this.#listOf(memory, work)?.address === list.address) &&
          get(memory, work, irq_work.flags) === flags &&
          (irq_work.irqwait === undefined || get(memory, work, irq_work.irqwait) === 0n) &&
          this.#hasReferences(draft, memory, task);
        const found = this.works(memory, list);
        const linked =
          found.length >= works.length && found.slice(-works.length).every((w, i) => w === works[i]);
        if (!ready || !linked) throw inconsistent(`not so: ${what}`);
      },
    };
  }

  /** Invariant: the words of a wake-up are free or serve the next one, and its reference is dropped. */
  #cleared(draft: Draft, work: GuestVirtual, task: GuestVirtual): Invariant {
    const what = `the words of the wake-up of task ${formatAddress(task)} are given back`;
    return {
      what,
      check: (memory) => {
        const isNext = this.#isOurs(memory, work) && this.#isActive(memory, work);
        const given = isNext || this.#isClear(memory, work);
        if (!given || !this.#hasReferences(draft, memory, task)) throw inconsistent(`not so: ${what}`);
      },
    };
  }

  #planReferences(draft: Draft, task: GuestVirtual, references: bigint, why: string): void {
    put(draft, task, this.#members.task_struct.usage, references, `task.usage (${why})`);
    const planned = this.#references.get(draft) ?? new Map<GuestVirtual, bigint>();
    this.#references.set(draft, planned.set(task, references));
  }

  #hasReferences(draft: Draft, memory: MemoryView, task: GuestVirtual): boolean {
    const planned = this.#references.get(draft)?.get(task);
    return get(memory, task, this.#members.task_struct.usage) === planned;
  }

  #planClear(draft: Draft, work: GuestVirtual): void {
    const { irq_work } = this.#members;
    // The function is cleared last, because it marks the words as ours.
    for (const name of ['next', 'flags', 'irqwait', 'list', 'task', 'func'] as const) {
      const field = irq_work[name];
      if (field !== undefined) put(draft, work, field, 0n, `irq_work.${name} (given back)`);
    }
  }

  #worksFor(memory: MemoryView, task: GuestVirtual): GuestVirtual[] {
    return this.#homes.filter((work) => this.#taskOf(memory, work) === task);
  }

  /** The list that our words go onto, if they name one and it exists. */
  #listOf(memory: MemoryView, work: GuestVirtual): LazyList | undefined {
    const { list } = this.#members.irq_work;
    const address = list === undefined ? undefined : follow(memory, work, list);
    return this.#lists.find((each) => each.address === address);
  }

  /** Whether a work has not run and is not on its list: a CPU has just taken it, or it was never linked. */
  #isOffList(memory: MemoryView, work: GuestVirtual): boolean {
    const list = this.#isActive(memory, work) ? this.#listOf(memory, work) : undefined;
    return list !== undefined && !this.works(memory, list).includes(work);
  }

  /**
   * Whether a work was never on its list, because a later one of the same task has run from there. A second work exists
   * only after the first, so it is the later one.
   */
  #isProvedLost(memory: MemoryView, work: GuestVirtual): boolean {
    const task = this.#taskOf(memory, work);
    if (task === undefined || !this.#isOffList(memory, work)) return false;
    const list = this.#listOf(memory, work);
    return this.#worksFor(memory, task).some(
      (other) => !this.#isActive(memory, other) && this.#listOf(memory, other) === list,
    );
  }

  /** The task that our words name; undefined if there is none. */
  #taskOf(memory: MemoryView, work: GuestVirtual): GuestVirtual | undefined {
    const task = this.#isOurs(memory, work) ? follow(memory, work, this.#members.irq_work.task) : 0n;
    return task === 0n ? undefined : (task as GuestVirtual);
  }

  #isOurs(memory: MemoryView, work: GuestVirtual): boolean {
    return follow(memory, work, this.#members.irq_work.func) === this.#wake;
  }

  #isActive(memory: MemoryView, work: GuestVirtual): boolean {
    const { irq_work } = this.#members;
    return (get(memory, work, irq_work.flags) & irq_work.active) !== 0n;
  }

  #isClear(memory: MemoryView, work: GuestVirtual): boolean {
    const bytes = memory.block(work, this.#members.irq_work.size);
    return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength).every((byte) => byte === 0);
  }
}
