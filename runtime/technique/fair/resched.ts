import type { Draft } from '../../edit/draft.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { get, put } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { formatAddress, type GuestVirtual } from '../../memory/address.ts';
import type { ProvedStateBits } from '../proved-bits.ts';
import type { FairCpu, FairMembers } from './members.ts';

/**
 * Requests to call `schedule()`.
 *
 * A kernel with a preemption count per CPU keeps each request twice: in a flag of the thread, which `need_resched()`
 * reads, and in the count, which `cond_resched()` reads. A CPU that asks itself writes both (`resched_curr()`,
 * kernel/sched/core.c). One that asks another writes the flag and sends an interrupt, whose handler writes the count.
 * The flag alone can hang code that stops working while `need_resched()` is true and continues after `cond_resched()`:
 * it never does either (`zap_pte_range()`, mm/memory.c).
 */
export class Resched {
  readonly #members: FairMembers;
  readonly #bits: ProvedStateBits;

  constructor(members: FairMembers, bits: ProvedStateBits) {
    this.#members = members;
    this.#bits = bits;
  }

  isAsked(memory: MemoryView, task: GuestVirtual): boolean {
    return (get(memory, task, this.#members.task_struct.thread_flags) & this.#bits.needResched) !== 0n;
  }

  /**
   * Plans that a CPU which runs `task` in user mode calls `schedule()` at its next chance: the kernel's
   * `cond_resched()`, or the way back to user mode. The count is written first: alone it only causes one more
   * `schedule()`.
   * @throws DomschedError `guest-inconsistent` for a count that cannot be one of user mode
   */
  planInUserMode(draft: Draft, { cpu, preemptCount }: FairCpu, task: GuestVirtual): void {
    const { preemptNeedResched, preemptCountSize } = this.#bits;
    const count = draft.word(preemptCount, preemptCountSize);
    if ((count & ~preemptNeedResched) !== 0n)
      throw inconsistent(`CPU ${cpu} is in user mode and its preemption count is 0x${count.toString(16)}`);
    draft.set(preemptCount, preemptCountSize, 0n, `preemption count of CPU ${cpu} (PREEMPT_NEED_RESCHED)`);
    this.planFlag(draft, task);
  }

  /**
   * Plans the flag alone. That is right for a thread that was preempted on its way to user mode and has no work left
   * there ({@link comesStraightBack}), because it looks at its flags again first.
   */
  planFlag(draft: Draft, task: GuestVirtual): void {
    planReschedFlag(draft, task, this.#members, this.#bits.needResched);
  }

  /**
   * Whether a thread that was preempted in `exit_to_user_mode_loop()` (kernel/entry/common.c) loops again at once. Work
   * it saw before it called `schedule()` comes first, and a signal among it may end the thread and free all of its
   * memory.
   */
  comesStraightBack(memory: MemoryView, task: GuestVirtual): boolean {
    const { thread_flags, task_works } = this.#members.task_struct;
    return (get(memory, task, thread_flags) & this.#bits.work) === 0n && get(memory, task, task_works) === 0n;
  }

  /** Checks that the request of a plan stands. @throws DomschedError `guest-inconsistent` */
  checkAsked(memory: MemoryView, task: GuestVirtual, cpu: FairCpu | undefined): void {
    const counted = cpu === undefined || memory.word(cpu.preemptCount, this.#bits.preemptCountSize) === 0n;
    if (!counted || !this.isAsked(memory, task))
      throw inconsistent(`not so: task ${formatAddress(task)} is asked to reschedule`);
  }
}

/**
 * Plans only the flag of a request. That is right for the idle task, whose loop writes the count itself (`do_idle()`,
 * kernel/sched/idle.c).
 * @param needResched TIF_NEED_RESCHED of this kernel
 */
export function planReschedFlag(
  draft: Draft,
  task: GuestVirtual,
  { task_struct: { thread_flags } }: FairMembers,
  needResched: bigint,
): void {
  const flags = get(draft, task, thread_flags) | needResched;
  put(draft, task, thread_flags, flags, 'thread_info.flags (TIF_NEED_RESCHED)');
}
