import type { Draft } from '../edit/draft.ts';
import type { Invariant } from '../edit/edit.ts';
import type { MemoryView } from '../edit/memory-view.ts';
import type { Domain, VcpuRegisters } from '../hypervisor/types.ts';
import type { GuestVirtual } from '../memory/address.ts';
import type { Shares } from '../technique/fair/shares.ts';
import type { Step, Technique } from '../technique/step.ts';

/** State of a thread with respect to holding it. */
export type ThreadStanding =
  /** In no run queue, and nothing in the guest will enqueue it. */
  | 'held'
  /** Asked to leave the CPU but has not yet. */
  | 'leaving'
  /** Has left the CPU as asked; the hold is not permanent yet. */
  | 'left'
  | 'running'
  | 'ready'
  | 'sleeping'
  /** Between two states: look again. */
  | 'changing'
  /** Runs no code of its process, or never will again, so there is nothing to hold. */
  | 'exempt';

/** States of a thread from the first step of its hold to the last step of its release. */
export const HELD: ReadonlySet<ThreadStanding> = new Set<ThreadStanding>(['held', 'leaving', 'left']);

/** Result of a plan that gives back what earlier releases borrowed from the guest. */
export interface GiveBack {
  readonly outcome: readonly Invariant[];
  /** Wake-ups still under way. */
  readonly pending: number;
  /** Structures of ended tasks that nobody can free; the guest keeps them until it restarts. */
  readonly kept: number;
}

/** Holds and releases threads of one kind of scheduler. It only plans; a transaction commits. */
export interface Holder {
  readonly techniques: readonly Technique[];
  /** Techniques used unless the caller asks for others. */
  readonly automatic: readonly Technique[];
  /**
   * For each technique that this guest lacks, the reason as a clause for a message. Techniques of other schedulers are
   * left out.
   */
  readonly refused?: ReadonlyMap<Technique, string>;
  /**
   * Proves once, before any plan, that the guest can be edited this way.
   * @throws DomschedError `refused`
   */
  prepare?(domain: Domain, memory: MemoryView): Promise<void>;
  /** Whether plans by these techniques need registers; {@link observe} must then be called first in each pause. */
  needsRegisters?(techniques: readonly Technique[]): boolean;
  /** @param vcpus keyed by the kernel's CPU number; CPUs that could not be matched are omitted */
  observe?(vcpus: ReadonlyMap<number, VcpuRegisters>): void;
  /** What must be true of the guest's queues before and after any edit. */
  invariants(): Invariant[];
  /** @throws DomschedError `lock-held`: try again later; `refused`: this guest cannot be edited */
  checkLocks(memory: MemoryView): void;
  standing(memory: MemoryView, thread: GuestVirtual): ThreadStanding;
  /**
   * Plans the next step towards holding a thread.
   * @returns null if nothing can be done at this moment: let the guest run and try again
   */
  planHold(draft: Draft, thread: GuestVirtual, techniques: readonly Technique[]): Step | null;
  /**
   * Plans the next step towards releasing a thread, whatever the state of its hold.
   * @returns null if nothing of a hold is left; `later` if nothing can be done at this moment
   */
  planRelease(draft: Draft, thread: GuestVirtual): Step | 'later' | null;
  /**
   * Plans to give back what earlier releases borrowed, also for threads that have ended since.
   * @param threads candidates to do work inside the guest
   */
  planGiveBack?(draft: Draft, threads: () => readonly GuestVirtual[]): GiveBack;
  /** Whether a thread must be held while its nice value changes, because queued threads are not edited. */
  readonly renicesHeld: boolean;
  /**
   * Plans another nice value.
   * @param nice -20..19
   * @returns what must be true afterwards; `later` if nothing can be done at this moment
   */
  planRenice(draft: Draft, thread: GuestVirtual, nice: number): readonly Invariant[] | 'later';
  /** Absent if the scheduler has no groups, or if {@link sharesRefused} says why we leave them alone. */
  readonly shares?: Shares;
  /** A clause for a message. */
  readonly sharesRefused?: string;
}
