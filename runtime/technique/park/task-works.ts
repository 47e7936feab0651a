/** Works that threads run on their way to user mode (kernel/task_work.c), and what can be told from a thread's own words. */

import type { Draft } from '../../edit/draft.ts';
import type { Invariant } from '../../edit/edit.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';
import { checkLockFree } from '../lock.ts';
import type { ThreadBits } from '../proved-bits.ts';
import type { WakeMembers } from './members.ts';

/** Bounds the walk over the works of one task. */
const MAX_WORKS = 1_024;

export class TaskWorks {
  readonly #members: WakeMembers;
  readonly #bits: ThreadBits;

  constructor(members: WakeMembers, bits: ThreadBits) {
    this.#members = members;
    this.#bits = bits;
  }

  /** Whether a task does not run code of its process, or will not again. */
  isExempt(memory: MemoryView, task: GuestVirtual): boolean {
    const { task_struct } = this.#members;
    const flags = get(memory, task, task_struct.flags);
    const ended = get(memory, task, task_struct.exit_state) !== 0n || (flags & this.#bits.exiting) !== 0n;
    return ended || (flags & this.#bits.workers) !== 0n || get(memory, task, task_struct.mm) === 0n;
  }

  onQueue(memory: MemoryView, task: GuestVirtual): boolean {
    return get(memory, task, this.#members.task_struct.on_rq) !== 0n;
  }

  /** @throws DomschedError `lock-held`: try again later */
  checkLocks(memory: MemoryView, task: GuestVirtual): void {
    const { task_struct, sighand_struct } = this.#members;
    checkLockFree(memory, follow(memory, task, task_struct.sighand), sighand_struct.siglock);
    // task_work_cancel() walks the list under this lock.
    checkLockFree(memory, task, task_struct.pi_lock);
  }

  /** Works that wait for a task, in order. @throws DomschedError `walk-unbounded` */
  list(memory: MemoryView, task: GuestVirtual): GuestVirtual[] {
    const found: GuestVirtual[] = [];
    for (let work = follow(memory, task, this.#members.task_struct.task_works); work !== 0n; ) {
      if (found.length === MAX_WORKS) {
        throw new DomschedError('walk-unbounded', `task ${formatAddress(task)} has works without end`, {
          task: formatAddress(task),
        });
      }
      found.push(work);
      work = follow(memory, work, this.#members.callback_head.next);
    }
    return found;
  }

  /** Plans a work of ours in front of those that wait for a task. */
  plan(draft: Draft, task: GuestVirtual, work: GuestVirtual, func: GuestVirtual, name: string): void {
    const { task_struct, callback_head } = this.#members;
    const first = follow(draft, task, task_struct.task_works);
    // The function marks the words as ours, so it is written first, and cleared last.
    put(draft, work, callback_head.func, func, `callback_head.func (${name})`);
    put(draft, work, callback_head.next, first, 'callback_head.next');
    put(draft, task, task_struct.task_works, work, 'task.task_works');
  }

  planNotify(draft: Draft, task: GuestVirtual): void {
    const { thread_flags } = this.#members.task_struct;
    const flags = get(draft, task, thread_flags);
    put(draft, task, thread_flags, flags | this.#bits.notifyResume, 'thread_info.flags (TIF_NOTIFY_RESUME)');
  }

  /** Invariant: exactly these works wait for a thread, and one of them has this function. */
  waiting(task: GuestVirtual, works: readonly GuestVirtual[], func: GuestVirtual): Invariant {
    const what = `task ${formatAddress(task)} runs ${works.length} works when it returns to user mode`;
    return {
      what,
      check: (memory) => {
        const { task_struct, callback_head } = this.#members;
        // The same edit may have put others before them.
        const found = this.list(memory, task).slice(-works.length);
        const holds =
          areEqual(found, works) &&
          found.some((work) => follow(memory, work, callback_head.func) === func) &&
          (get(memory, task, task_struct.thread_flags) & this.#bits.notifyResume) !== 0n;
        if (!holds) throw inconsistent(`not so: ${what}`);
      },
    };
  }

  /**
   * Whether a task has ended for good and only our reference keeps its structure. If the guest's own
   * `call_rcu(&task->rcu)` were under way, there would be two references.
   */
  isFreeable(memory: MemoryView, task: GuestVirtual): boolean {
    const { task_struct } = this.#members;
    const ended = get(memory, task, task_struct.exit_state) !== 0n;
    const off = get(memory, task, task_struct.on_cpu) === 0n && get(memory, task, task_struct.on_rq) === 0n;
    return ended && off && get(memory, task, task_struct.usage) === 1n;
  }

  /** Whether a thread will run works put into its list: a living user thread whose locks are free. */
  areTakenBy(memory: MemoryView, task: GuestVirtual): boolean {
    if (this.isExempt(memory, task)) return false;
    try {
      this.checkLocks(memory, task);
      return true;
    } catch (error) {
      if (error instanceof DomschedError && error.code === 'lock-held') return false;
      throw error;
    }
  }

  /**
   * Plans that a thread drops the last reference to a task that has ended, as RCU does: by
   * `delayed_put_task_struct(&task->rcu)`, which has the type of a task work.
   * @returns what must hold afterwards
   */
  planFree(draft: Draft, task: GuestVirtual, thread: GuestVirtual, func: GuestVirtual): Invariant {
    const works = this.list(draft, thread);
    const work = advance(task, this.#members.task_struct.rcu);
    this.plan(draft, thread, work, func, 'delayed_put_task_struct');
    this.planNotify(draft, thread);
    return this.waiting(thread, [work, ...works], func);
  }
}

export function areEqual(a: readonly GuestVirtual[], b: readonly GuestVirtual[]): boolean {
  return a.length === b.length && a.every((address, index) => address === b[index]);
}
