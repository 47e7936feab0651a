import type { Draft } from '../edit/draft.ts';
import type { Invariant } from '../edit/edit.ts';
import type { MemoryView } from '../edit/memory-view.ts';
import type { Domain, VcpuRegisters } from '../hypervisor/types.ts';
import type { GuestVirtual } from '../memory/address.ts';
import type { Shares } from '../technique/fair/shares.ts';
import type { Step, Technique } from '../technique/step.ts';

/** Where a thread stands, for someone who wants to hold it. */
export type ThreadStanding =
  /** In no run queue, and nothing in the guest will put it into one. */
  | 'held'
  /** Was asked to leave the CPU and has not done so yet. */
  | 'leaving'
  /** Left the CPU as it was asked to; the hold is yet to be made to last. */
  | 'left'
  | 'running'
  | 'ready'
  | 'sleeping'
  /** Between two states: look again. */
  | 'changing'
  /** Runs no code of its process, or never again: there is nothing to hold. */
  | 'exempt';

/** What an earlier release took of the guest and needs no more, as a plan gives it back. */
export interface GiveBack {
  readonly outcome: readonly Invariant[];
  /** Wake-ups that are still under way. */
  readonly pending: number;
  /** Structures of ended tasks that nobody can free: the guest keeps them until it is restarted. */
  readonly kept: number;
}

/** One kind of scheduler's way to hold threads and let them go. It plans; a transaction commits. */
export interface Holder {
  readonly techniques: readonly Technique[];
  /** The techniques that are used unless somebody asks for another. */
  readonly automatic: readonly Technique[];
  /** Why each of the others is not there, as a clause for a message; nothing of those that this kind of scheduler has not. */
  readonly refused?: ReadonlyMap<Technique, string>;
  /**
   * Proves once, before anything is planned, that the guest can be edited this way.
   * @throws DomschedError `refused`
   */
  prepare?(domain: Domain, memory: MemoryView): Promise<void>;
  /** Whether plans by these techniques look at registers: then {@link observe} comes first in each pause. */
  needsRegisters?(techniques: readonly Technique[]): boolean;
  /** @param vcpus by the kernel's number, those that are proved to be that CPU */
  observe?(vcpus: ReadonlyMap<number, VcpuRegisters>): void;
  /** What has to be true of the guest's queues before and after any edit. */
  invariants(): Invariant[];
  /** @throws DomschedError `lock-held`: try again later; `refused`: this guest can't be edited */
  checkLocks(memory: MemoryView): void;
  standing(memory: MemoryView, thread: GuestVirtual): ThreadStanding;
  /**
   * Plans the next step towards holding a thread.
   * @returns null when nothing can be done at this moment: let the guest run and try again
   */
  planHold(draft: Draft, thread: GuestVirtual, techniques: readonly Technique[]): Step | null;
  /**
   * Plans the next step towards letting a thread go on, wherever in being held it stands.
   * @returns null when nothing of a hold is left; `later` when nothing can be done at this moment
   */
  planRelease(draft: Draft, thread: GuestVirtual): Step | 'later' | null;
  /**
   * Plans to give back what releases took, of whoever: also of threads that have ended since.
   * @param threads any that could do something for the guest
   */
  planGiveBack?(draft: Draft, threads: () => readonly GuestVirtual[]): GiveBack;
  /** A thread has to be held to get another nice value: what is in a run queue is not edited there. */
  readonly renicesHeld: boolean;
  /**
   * Plans another nice value.
   * @param nice -20..19
   * @returns what has to be so afterwards; `later` when nothing can be done at this moment
   */
  planRenice(draft: Draft, thread: GuestVirtual, nice: number): readonly Invariant[] | 'later';
  /** Absent where the scheduler has no groups, or where {@link sharesRefused} says why they are left alone. */
  readonly shares?: Shares;
  /** A clause for a message. */
  readonly sharesRefused?: string;
}
