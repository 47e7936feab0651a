import type { Draft } from '../../edit/draft.ts';
import { get } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import { threadRefusal } from '../refusal.ts';
import type { Step } from '../step.ts';
import type { FairSurgery } from './fair.ts';
import type { FairGuest } from './members.ts';
import { isAtUserBorder } from './user-border.ts';

/** From include/linux/sched.h. */
const TASK_RUNNING = 0n;

/**
 * Holds a ready thread of a fair scheduler by taking it out of its run queue, and releases it by putting it back
 * (Tadokoro, Kourai, Chiba, "Process scheduling among virtual machines", sections 4.5 and 4.6, for CFS and EEVDF).
 *
 * The thread stays TASK_RUNNING in no queue. No wake-up of the guest touches such a thread, so we must put it back
 * ourselves. In the guest's accounts (pressure, run delay) it remains a thread that waits for a CPU.
 */
export class FairSplice {
  readonly #guest: FairGuest;
  readonly #fair: FairSurgery;

  constructor(guest: FairGuest, fair: FairSurgery) {
    this.#guest = guest;
    this.#fair = fair;
  }

  /**
   * Whether a thread is TASK_RUNNING and in no queue, a state in which the kernel leaves no thread.
   * @throws DomschedError `lock-held` while the guest may be putting a new thread into its first queue
   */
  isHeld(memory: MemoryView, thread: GuestVirtual): boolean {
    if (this.#state(memory, thread) !== TASK_RUNNING || !this.#fair.isOff(memory, thread)) return false;
    this.#fair.checkLocks(memory, thread);
    return true;
  }

  /**
   * Plans to take a ready thread out.
   * @returns null when it is not ready, or was preempted in the kernel, where it may hold a lock
   * @throws DomschedError `lock-held`, `refused`
   */
  planHold(draft: Draft, thread: GuestVirtual): Step | null {
    const obstacle = this.#fair.obstacle(draft, thread);
    if (obstacle !== null) throw threadRefusal(thread, obstacle);
    if (this.#fair.countsClamps(draft))
      throw threadRefusal(
        thread,
        'may be counted by its clamp: this guest uses utilization clamps (sched_uclamp_used), so hold it another way',
      );
    if (this.#fair.countsCache(draft, thread))
      throw threadRefusal(
        thread,
        'is counted by the cache that it is to share (preferred_llc), so hold it another way',
      );
    this.#fair.checkLocks(draft, thread);
    const ready = this.#state(draft, thread) === TASK_RUNNING && this.#fair.isReady(draft, thread);
    if (!ready || !isAtUserBorder(this.#guest, draft, thread)) return null;
    if (this.#fair.isBlocked(draft, thread)) return null;
    const invariants = [this.#fair.invariant(draft, thread)];
    return { technique: 'splice', invariants, outcome: [this.#fair.planDequeue(draft, thread)] };
  }

  /**
   * Plans to put a thread back.
   * @returns `later` when its group has no time left (cpu.max)
   * @throws DomschedError `lock-held`; `refused` when the guest no longer lets it run where it was
   */
  planRelease(draft: Draft, thread: GuestVirtual): Step | 'later' {
    this.#fair.checkLocks(draft, thread);
    const cpu = this.#fair.cpuOf(draft, thread);
    const obstacle = this.#fair.obstacle(draft, thread);
    // Meanwhile the guest may have given it another class, which has other queues.
    if (obstacle !== null)
      throw threadRefusal(
        thread,
        `${obstacle} now: give it its old policy back, then release again; it is still held`,
      );
    if (!this.#fair.hasCpu(draft, thread)) {
      throw threadRefusal(
        thread,
        `was taken out of the queue of CPU ${cpu.cpu}, which is offline or no longer allowed to it: ` +
          'bring the CPU back or allow it, then release again; it is still held',
      );
    }
    if (this.#fair.isBlocked(draft, thread)) return 'later';
    const invariants = [this.#fair.invariant(draft, thread)];
    const outcome = [this.#fair.planEnqueue(draft, thread)];
    const interrupts = this.#fair.isIdle(draft, cpu) ? [{ cpu: cpu.cpu, kind: 'reschedule' as const }] : [];
    return { technique: 'splice', invariants, outcome, interrupts };
  }

  #state(memory: MemoryView, thread: GuestVirtual): bigint {
    return get(memory, thread, this.#guest.members.task_struct.state);
  }
}
