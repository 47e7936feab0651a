import type { Draft } from '../../edit/draft.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { get, put, type Word } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import { type FairDiscipline, isBefore, type TreeEntity } from './discipline.ts';
import type { FairMembers } from './members.ts';

/** 2^62 ns. An entity this far ahead was away too long for virtual times to be compared, and counts as having none. */
const FAR = 1n << 62n;

/**
 * The Completely Fair Scheduler (2.6.23 to 6.5, kernel/sched/fair.c), whose trees are ordered by virtual run time.
 *
 * We leave `min_vruntime` alone: it only follows the smallest run time of its queue, and the guest updates it at its
 * next `update_curr()`.
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
   * As `place_entity()`, but without the bonus for sleepers, because a held thread did not sleep. It is never placed
   * behind its queue, so that it gains nothing for the time it was held.
   */
  place(draft: Draft, queue: GuestVirtual, entity: GuestVirtual): void {
    const minimum = get(draft, queue, this.#minimum);
    const ahead = BigInt.asIntN(64, get(draft, entity, this.#vruntime) - minimum);
    if (ahead >= 0n && ahead < FAR) return;
    put(draft, entity, this.#vruntime, minimum, 'se.vruntime');
  }

  /** Nothing to plan: like a sleeper, the entity keeps its absolute run time. */
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
