import type { Draft } from '../../edit/draft.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { get, put, type Word } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import { type FairDiscipline, isBefore, type TreeEntity } from './discipline.ts';
import type { FairMembers } from './members.ts';

/** An entity that was away so long that virtual times can't be compared any more counts as one that has none: 2^62 ns. */
const FAR = 1n << 62n;

/**
 * The Completely Fair Scheduler (2.6.23 to 6.5, kernel/sched/fair.c): trees are ordered by virtual run time.
 *
 * `min_vruntime` is left alone: it only ever follows the smallest run time of its queue, and the guest brings it up
 * at its next `update_curr()`.
 */
export class Cfs implements FairDiscipline {
  readonly augment = null;
  readonly #vruntime: Word;
  readonly #minimum: Word;

  constructor(members: FairMembers, cfs: NonNullable<FairMembers['cfs']>) {
    this.#vruntime = members.sched_entity.vruntime;
    this.#minimum = cfs.min_vruntime;
  }

  before(memory: MemoryView, entity: GuestVirtual, other: GuestVirtual): boolean {
    return isBefore(get(memory, entity, this.#vruntime), get(memory, other, this.#vruntime));
  }

  /**
   * As `place_entity()`, but for the bonus of sleepers: who was held did not sleep. Never behind its queue, so that
   * it gets nothing for the time in which it was held.
   */
  place(draft: Draft, queue: GuestVirtual, entity: GuestVirtual): void {
    const minimum = get(draft, queue, this.#minimum);
    const ahead = BigInt.asIntN(64, get(draft, entity, this.#vruntime) - minimum);
    if (ahead >= 0n && ahead < FAR) return;
    put(draft, entity, this.#vruntime, minimum, 'se.vruntime');
  }

  /** Its run time is absolute, as a sleeper's. */
  leave(): void {}

  count(): void {}

  check(memory: MemoryView, _queue: GuestVirtual, nodes: readonly TreeEntity[], name: string): void {
    for (const [index, { entity }] of nodes.entries()) {
      if (index > 0 && this.before(memory, entity, nodes[index - 1]!.entity)) {
        throw inconsistent(`${name}: entities are not in the order of vruntime`);
      }
    }
  }
}
