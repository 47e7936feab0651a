import type { Draft } from '../../edit/draft.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import type { GuestVirtual } from '../../memory/address.ts';

/**
 * What differs between the two fair schedulers: the order of their trees, what each node keeps of its subtree, and
 * where a new entity is placed. Entities and queues are addresses of `sched_entity` and `cfs_rq`.
 */
export interface FairDiscipline {
  /** Whether one entity comes before another in the tree. */
  before(memory: MemoryView, entity: GuestVirtual, other: GuestVirtual): boolean;
  /** Writes what an entity keeps of its subtree; null where it keeps nothing. A missing child is 0. */
  readonly augment:
    | ((draft: Draft, entity: GuestVirtual, left: GuestVirtual, right: GuestVirtual, name: string) => void)
    | null;
  /** Plans the position of an entity that is about to enter the queue. */
  place(draft: Draft, queue: GuestVirtual, entity: GuestVirtual, name: string): void;
  /** Plans what an entity keeps of its position, before it leaves the queue. */
  leave(draft: Draft, queue: GuestVirtual, entity: GuestVirtual, name: string): void;
  /** Plans the sums that a queue keeps of its tree, after an entity entered (1) or before it leaves (-1). */
  count(draft: Draft, queue: GuestVirtual, entity: GuestVirtual, change: 1n | -1n, name: string): void;
  /**
   * Checks what a queue and its tree keep.
   * @param nodes entities of the tree in order, with their children
   * @throws DomschedError `guest-inconsistent`
   */
  check(memory: MemoryView, queue: GuestVirtual, nodes: readonly TreeEntity[], name: string): void;
}

/** An entity in a tree; a missing child is 0. */
export interface TreeEntity {
  readonly entity: GuestVirtual;
  readonly left: GuestVirtual;
  readonly right: GuestVirtual;
}

/** Whether one 64-bit virtual time is before another. They wrap around. */
export function isBefore(a: bigint, b: bigint): boolean {
  return BigInt.asIntN(64, a - b) < 0n;
}
