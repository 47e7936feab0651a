/**
 * Edits of the O(1) scheduler's run queues (Linux 2.6.0 to 2.6.22, kernel/sched.c). Each CPU has two `prio_array`s with
 * one list per priority, a bitmap of the lists that are not empty, and counters.
 *
 * A running task stays linked in its array and leaves it only in `schedule()`. So a *ready* task (linked, current on no
 * CPU) can be unlinked from outside as `deactivate_task()` does it, provided the queue's lock is free (Tadokoro,
 * Kourai, Chiba: "Process scheduling among virtual machines", sections 4.5 and 4.6).
 */

import type { Draft } from '../../edit/draft.ts';
import type { Invariant } from '../../edit/edit.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put, type Word } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import { lockHeld } from '../../guest/locks.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';
import { threadRefusal } from '../refusal.ts';
import { checkNice, NICE_LEVELS } from '../weights.ts';
import { arraysOf, bitOf, checkQueue, headOf, isLinked } from './check.ts';
import type { O1GuestFacts, O1Members, O1Queue } from './members.ts';
import { loadWeight } from './weight.ts';

/** The last 40 priorities are those of nice -20 to 19; nice 0 is 20 before the end (kernel/sched.c). */
const NICE_ZERO_FROM_END = 20;

export class O1Surgery {
  readonly #members: O1Members;
  readonly #needResched: bigint;
  readonly #queues: readonly O1Queue[];
  readonly #hz: number | null;

  constructor({ members, bits, queues, hz }: O1GuestFacts) {
    this.#members = members;
    this.#needResched = bits.needResched;
    this.#queues = queues;
    this.#hz = hz;
  }

  /** Invariants: every run queue is consistent. */
  invariants(): Invariant[] {
    return this.#queues.map((queue) => ({
      what: `rq[${queue.cpu}] is consistent`,
      check: (memory) => checkQueue(this.#members, memory, queue),
    }));
  }

  /** Invariant: `task` is linked in the list of its priority and points to that array, or neither is so. */
  outcome(task: GuestVirtual, linked: boolean): Invariant {
    const what = `task ${formatAddress(task)} is ${linked ? '' : 'not '}in a run queue`;
    return {
      what,
      check: (memory) => {
        const array = follow(memory, task, this.#members.task_struct.array);
        const found = isLinked(this.#members, memory, this.queueOf(memory, task), task);
        if (found !== linked || (array !== 0n) !== linked) throw inconsistent(`not so: ${what}`);
      },
    };
  }

  /** Invariant: `task` has this state. */
  inState(task: GuestVirtual, state: bigint): Invariant {
    const what = `task ${formatAddress(task)} has state ${state}`;
    return {
      what,
      check: (memory) => {
        const found = get(memory, task, this.#members.task_struct.state);
        if (found !== state) throw inconsistent(`not so: ${what}; it is ${found}`);
      },
    };
  }

  /** Invariant: the CPU of `task` is asked to call `schedule()`. */
  asked(task: GuestVirtual): Invariant {
    const what = `the CPU of task ${formatAddress(task)} is asked to reschedule`;
    return {
      what,
      check: (memory) => {
        const info = follow(memory, task, this.#members.task_struct.thread_info);
        if ((get(memory, info, this.#members.thread_info.flags) & this.#needResched) === 0n)
          throw inconsistent(`not so: ${what}`);
      },
    };
  }

  /**
   * @throws DomschedError `lock-held` when a run queue's lock is taken: let the domain run a little and try again;
   *   `refused` for a kernel without such locks
   */
  checkLocks(memory: MemoryView): void {
    const { lock } = this.#members.rq;
    if (lock.kind === 'none') {
      throw new DomschedError(
        'refused',
        "this kernel's run queues have no lock (UP): nobody can tell from outside whether one is being changed",
      );
    }
    for (const { cpu, address } of this.#queues) {
      if (!lockHeld(lock, Number(get(memory, address, lock.word as Word)))) continue;
      throw new DomschedError('lock-held', `rq[${cpu}].lock is held`, { cpu });
    }
  }

  /** The queue that `task` belongs to, by its `thread_info.cpu`. */
  queueOf(memory: MemoryView, task: GuestVirtual): O1Queue {
    const info = follow(memory, task, this.#members.task_struct.thread_info);
    const cpu = get(memory, info, this.#members.thread_info.cpu);
    const queue = this.#queues.find((candidate) => BigInt(candidate.cpu) === cpu);
    if (queue !== undefined) return queue;
    throw inconsistent(`task ${formatAddress(task)} is on CPU ${cpu}, which has no run queue`);
  }

  /** The queue whose CPU runs `task`, or null. */
  currentOn(memory: MemoryView, task: GuestVirtual): O1Queue | null {
    const { curr } = this.#members.rq;
    return this.#queues.find(({ address }) => follow(memory, address, curr) === task) ?? null;
  }

  /**
   * Whether fork() made the task and has not queued it yet. It looks held, but its list node leads to itself
   * (`sched_fork()`, kernel/sched.c); the node of a task that left a queue leads elsewhere.
   */
  isNew(memory: MemoryView, task: GuestVirtual): boolean {
    const node = advance(task, this.#members.task_struct.run_list);
    return follow(memory, node, this.#members.list_head.next) === node;
  }

  /** Whether a task is linked in an array and current nowhere. */
  isReady(memory: MemoryView, task: GuestVirtual): boolean {
    const linked = follow(memory, task, this.#members.task_struct.array) !== 0n;
    return linked && this.currentOn(memory, task) === null;
  }

  /**
   * Plans to take a ready task out of its run queue, as `deactivate_task()` does.
   * @returns what must hold afterwards
   * @throws DomschedError `refused` when the task is not ready
   */
  planDequeue(draft: Draft, task: GuestVirtual): Invariant[] {
    if (!this.isReady(draft, task)) {
      throw new DomschedError('refused', `task ${formatAddress(task)} is not waiting in a run queue`);
    }
    const { task_struct } = this.#members;
    const queue = this.queueOf(draft, task);
    const array = follow(draft, task, task_struct.array);
    this.#unlink(draft, queue, array, task);
    put(draft, task, task_struct.array, 0n, 'task.array');
    this.#count(draft, queue, array, task, -1n);
    return [this.outcome(task, false)];
  }

  /**
   * Plans to put a task that is in no queue at the end of its list in the active array, as `activate_task()` does, and
   * asks an idle CPU to look at its queue.
   * @returns what must hold afterwards
   * @throws DomschedError `refused` when the task is in a queue already, or current
   */
  planEnqueue(draft: Draft, task: GuestVirtual): Invariant[] {
    const { task_struct, rq } = this.#members;
    if (follow(draft, task, task_struct.array) !== 0n || this.currentOn(draft, task) !== null) {
      throw new DomschedError('refused', `task ${formatAddress(task)} is in a run queue already`);
    }
    const queue = this.queueOf(draft, task);
    const array = follow(draft, queue.address, rq.active);
    this.#link(draft, queue, array, task);
    put(draft, task, task_struct.array, array, 'task.array');
    this.#count(draft, queue, array, task, 1n);
    const curr = follow(draft, queue.address, rq.curr);
    const outcome = [this.outcome(task, true)];
    if (curr !== follow(draft, queue.address, rq.idle)) return outcome;
    return [...outcome, this.planReschedule(draft, curr)];
  }

  /** Plans that the CPU of `task` calls `schedule()` when it next returns from an interrupt. */
  planReschedule(draft: Draft, task: GuestVirtual): Invariant {
    const info = follow(draft, task, this.#members.task_struct.thread_info);
    const { flags } = this.#members.thread_info;
    put(draft, info, flags, get(draft, info, flags) | this.#needResched, 'thread_info.flags');
    return this.asked(task);
  }

  /**
   * Plans a new nice value that works at once: a queued task moves to the list of its new priority, as in
   * `set_user_nice()`. The paper writes `static_prio` alone (section 4.7), which counts only from the next requeueing.
   * @param nice -20..19
   * @returns what must hold afterwards
   * @throws DomschedError `usage` for a nice value out of range; `refused` for a real-time task, for one that a lock
   *   has boosted, and for one whose weight does not match its present nice value
   */
  planRenice(draft: Draft, task: GuestVirtual, nice: number): Invariant[] {
    checkNice(nice);
    const { task_struct, prio_array, rq } = this.#members;
    if (this.#priority(draft, task) < prio_array.priorities - NICE_LEVELS) {
      throw new DomschedError('refused', `task ${formatAddress(task)} has a real-time priority`);
    }
    const { normal_prio } = task_struct;
    if (normal_prio !== undefined && get(draft, task, normal_prio) !== get(draft, task, task_struct.prio)) {
      throw threadRefusal(task, 'has another priority for as long as it holds a lock');
    }
    const prio = BigInt(prio_array.priorities - NICE_ZERO_FROM_END + nice);
    const weight = this.#newWeight(draft, task, prio);
    const queue = this.queueOf(draft, task);
    const array = follow(draft, task, task_struct.array);
    if (array !== 0n) {
      this.#unlink(draft, queue, array, task);
      this.#addLoad(draft, queue, task, -1n);
    }
    put(draft, task, task_struct.static_prio, prio, 'task.static_prio');
    put(draft, task, task_struct.prio, prio, 'task.prio');
    if (normal_prio !== undefined) put(draft, task, normal_prio, prio, 'task.normal_prio');
    if (weight !== null) put(draft, task, task_struct.load_weight!, weight, 'task.load_weight');
    const outcome = [this.#prioritized(task, prio, weight), this.outcome(task, array !== 0n)];
    if (array === 0n) return outcome;
    this.#link(draft, queue, array, task);
    this.#addLoad(draft, queue, task, 1n);
    return [...outcome, this.planReschedule(draft, follow(draft, queue.address, rq.curr))];
  }

  /**
   * Weight that `set_load_weight()` would give; null where tasks have none. Refuses a present one that does not fit.
   */
  #newWeight(memory: MemoryView, task: GuestVirtual, prio: bigint): bigint | null {
    const { load_weight, static_prio } = this.#members.task_struct;
    if (load_weight === undefined) return null;
    if (this.#hz === null)
      throw threadRefusal(task, 'has a weight, and how long a tick is (tick_nsec) is not known');
    const { priorities } = this.#members.prio_array;
    const present = loadWeight(Number(get(memory, task, static_prio)), priorities, this.#hz);
    const found = get(memory, task, load_weight);
    if (found === present) return loadWeight(Number(prio), priorities, this.#hz);
    throw threadRefusal(task, `has load_weight ${found}, not the ${present} of its nice value`);
  }

  #prioritized(task: GuestVirtual, prio: bigint, weight: bigint | null): Invariant {
    const what = `task ${formatAddress(task)} has priority ${prio}${weight === null ? '' : ` and weight ${weight}`}`;
    const { static_prio, prio: current, normal_prio, load_weight } = this.#members.task_struct;
    return {
      what,
      check: (memory) => {
        const prios = [static_prio, current, normal_prio].filter((field) => field !== undefined);
        const same = prios.every((field) => get(memory, task, field) === prio);
        if (!same || (weight !== null && get(memory, task, load_weight!) !== weight))
          throw inconsistent(`not so: ${what}`);
      },
    };
  }

  #unlink(draft: Draft, queue: O1Queue, array: GuestVirtual, task: GuestVirtual): void {
    const { list_head, task_struct } = this.#members;
    const name = this.#nameOf(draft, queue, array);
    const prio = this.#priority(draft, task);
    const node = advance(task, task_struct.run_list);
    const next = follow(draft, node, list_head.next);
    const prev = follow(draft, node, list_head.prev);
    put(draft, prev, list_head.next, next, `${name}.queue[${prio}]: next of the task before`);
    put(draft, next, list_head.prev, prev, `${name}.queue[${prio}]: prev of the task after`);
    const head = headOf(this.#members, array, prio);
    if (next === head && prev === head) this.#setBit(draft, array, prio, false, name);
  }

  #link(draft: Draft, queue: O1Queue, array: GuestVirtual, task: GuestVirtual): void {
    const { list_head, task_struct } = this.#members;
    const name = this.#nameOf(draft, queue, array);
    const prio = this.#priority(draft, task);
    const node = advance(task, task_struct.run_list);
    const head = headOf(this.#members, array, prio);
    const last = follow(draft, head, list_head.prev);
    put(draft, node, list_head.next, head, 'task.run_list.next');
    put(draft, node, list_head.prev, last, 'task.run_list.prev');
    put(draft, last, list_head.next, node, `${name}.queue[${prio}]: next of the last task`);
    put(draft, head, list_head.prev, node, `${name}.queue[${prio}].prev`);
    this.#setBit(draft, array, prio, true, name);
  }

  #setBit(draft: Draft, array: GuestVirtual, prio: number, on: boolean, name: string): void {
    const { address, mask } = bitOf(this.#members, array, prio);
    const { size } = this.#members.prio_array.bitmap_word;
    const word = draft.word(address, size);
    draft.set(address, size, on ? word | mask : word & ~mask, `${name}.bitmap (bit ${prio})`);
  }

  #count(draft: Draft, queue: O1Queue, array: GuestVirtual, task: GuestVirtual, change: 1n | -1n): void {
    const { rq, prio_array } = this.#members;
    const name = this.#nameOf(draft, queue, array);
    const nrActive = get(draft, array, prio_array.nr_active);
    put(draft, array, prio_array.nr_active, nrActive + change, `${name}.nr_active`);
    const nrRunning = get(draft, queue.address, rq.nr_running);
    put(draft, queue.address, rq.nr_running, nrRunning + change, `rq[${queue.cpu}].nr_running`);
    this.#addLoad(draft, queue, task, change);
  }

  /** Load weights came with "[PATCH] sched: implement smpnice", 2.6.18. */
  #addLoad(draft: Draft, queue: O1Queue, task: GuestVirtual, change: 1n | -1n): void {
    const { raw_weighted_load } = this.#members.rq;
    const { load_weight } = this.#members.task_struct;
    if (raw_weighted_load === undefined || load_weight === undefined) return;
    const load = get(draft, queue.address, raw_weighted_load) + change * get(draft, task, load_weight);
    put(draft, queue.address, raw_weighted_load, load, `rq[${queue.cpu}].raw_weighted_load`);
  }

  #priority(memory: MemoryView, task: GuestVirtual): number {
    const prio = Number(get(memory, task, this.#members.task_struct.prio));
    if (prio < this.#members.prio_array.priorities) return prio;
    throw inconsistent(`task ${formatAddress(task)} has priority ${prio}`);
  }

  /** @throws DomschedError `guest-inconsistent` for an array that is not this queue's */
  #nameOf(memory: MemoryView, queue: O1Queue, array: GuestVirtual): string {
    if (!arraysOf(this.#members, queue).includes(array)) {
      throw inconsistent(`${formatAddress(array)} is no prio_array of rq[${queue.cpu}]`);
    }
    const active = follow(memory, queue.address, this.#members.rq.active) === array;
    return `rq[${queue.cpu}].${active ? 'active' : 'expired'}`;
  }
}
