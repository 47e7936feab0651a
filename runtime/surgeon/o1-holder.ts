import type { Draft } from '../edit/draft.ts';
import type { Invariant } from '../edit/edit.ts';
import { inconsistent } from '../edit/inconsistent.ts';
import { follow, get, put } from '../edit/member.ts';
import type { MemoryView } from '../edit/memory-view.ts';
import type { GuestVirtual } from '../memory/address.ts';
import { formatAddress } from '../memory/address.ts';
import type { O1GuestFacts, O1Members } from '../technique/o1/members.ts';
import { O1Surgery } from '../technique/o1/o1.ts';
import { threadRefusal } from '../technique/refusal.ts';
import type { Step, Technique } from '../technique/step.ts';
import type { Holder, ThreadStanding } from './holder.ts';

/** The state without any bit. */
const TASK_RUNNING = 0n;

/**
 * Holds threads of a kernel with O(1) run queues: a ready one by unlinking it (`splice`), a running one by a state that
 * makes `schedule()` take it off (`state`).
 *
 * Both end with the thread in `TASK_RUNNING` and in no array. `try_to_wake_up()` ignores a running task, so no signal
 * or event enqueues it again; only {@link planRelease} does. A sleeping thread is left until it wakes: changing its
 * state would lose the wake-up that it waits for.
 */
export class O1Holder implements Holder {
  readonly techniques: readonly Technique[] = ['splice', 'state'];
  readonly automatic = this.techniques;
  readonly renicesHeld = false;
  readonly #members: O1Members;
  /** State of a thread that we asked to leave its queue. */
  readonly #left: bigint;
  readonly #surgery: O1Surgery;

  constructor(guest: O1GuestFacts) {
    this.#members = guest.members;
    this.#left = guest.bits.held;
    this.#surgery = new O1Surgery(guest);
  }

  invariants(): Invariant[] {
    return this.#surgery.invariants();
  }

  checkLocks(memory: MemoryView): void {
    this.#surgery.checkLocks(memory);
  }

  standing(memory: MemoryView, thread: GuestVirtual): ThreadStanding {
    const { task_struct } = this.#members;
    const state = get(memory, thread, task_struct.state);
    const linked = follow(memory, thread, task_struct.array) !== 0n;
    const current = this.#surgery.currentOn(memory, thread) !== null;
    if (state === TASK_RUNNING) {
      // A current task that is not linked is on its way out of schedule().
      if (current) return linked ? 'running' : 'changing';
      if (linked) return 'ready';
      return this.#surgery.isNew(memory, thread) ? 'changing' : 'held';
    }
    if (state === this.#left) return linked || current ? 'leaving' : 'left';
    // Linked but not running: about to sleep, or preempted on the way there.
    return linked || current ? 'changing' : 'sleeping';
  }

  planHold(draft: Draft, thread: GuestVirtual, techniques: readonly Technique[]): Step | null {
    const { task_struct } = this.#members;
    if (get(draft, thread, task_struct.ptrace) !== 0n) throw threadRefusal(thread, 'is under a tracer');
    switch (this.standing(draft, thread)) {
      case 'ready':
        if (!techniques.includes('splice')) return null;
        return { technique: 'splice', outcome: this.#surgery.planDequeue(draft, thread) };
      case 'running':
        if (!techniques.includes('state')) return null;
        put(draft, thread, task_struct.state, this.#left, 'task.state');
        return {
          technique: 'state',
          outcome: [this.#stands(thread, 'leaving'), this.#surgery.planReschedule(draft, thread)],
        };
      case 'left':
        put(draft, thread, task_struct.state, TASK_RUNNING, 'task.state');
        return { technique: 'state', outcome: [this.#stands(thread, 'held')] };
      default:
        return null;
    }
  }

  planRelease(draft: Draft, thread: GuestVirtual): Step | null {
    const { task_struct } = this.#members;
    const standing = this.standing(draft, thread);
    if (standing === 'leaving') {
      put(draft, thread, task_struct.state, TASK_RUNNING, 'task.state');
      return { technique: 'state', outcome: [this.#surgery.inState(thread, TASK_RUNNING)] };
    }
    if (standing !== 'held' && standing !== 'left') return null;
    put(draft, thread, task_struct.state, TASK_RUNNING, 'task.state');
    const outcome = [
      this.#surgery.inState(thread, TASK_RUNNING),
      ...this.#surgery.planEnqueue(draft, thread),
    ];
    return { technique: 'splice', outcome };
  }

  planRenice(draft: Draft, thread: GuestVirtual, nice: number): readonly Invariant[] {
    return this.#surgery.planRenice(draft, thread, nice);
  }

  #stands(thread: GuestVirtual, standing: ThreadStanding): Invariant {
    const what = `task ${formatAddress(thread)} is ${standing}`;
    return {
      what,
      check: (memory) => {
        const found = this.standing(memory, thread);
        if (found !== standing) throw inconsistent(`not so: ${what}; it is ${found}`);
      },
    };
  }
}
