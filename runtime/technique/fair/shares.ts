/**
 * The weight of a whole group of processes among the other groups: `task_group.shares`, one word, written as
 * `__sched_group_set_shares()` does (kernel/sched/fair.c). The guest's own `update_cfs_group()` then adjusts the weight
 * of the group's entities, at the next tick in which the group runs or when it next comes or goes.
 *
 * A group is an autogroup (one per session) or a control group with the cpu controller. A nice value counts only inside
 * its group.
 */

import type { Draft } from '../../edit/draft.ts';
import type { Invariant } from '../../edit/edit.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put, type Word, wordsOf } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { lackOf } from '../../layout/members.ts';
import type { LayoutView } from '../../layout/view.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';
import { threadRefusal } from '../refusal.ts';
import { checkNice, LOWEST_NICE, scaleRefusal, WEIGHT_SHIFT } from '../weights.ts';

/** MIN_SHARES and MAX_SHARES (kernel/sched/sched.h): bounds for what a guest says. */
const MIN_SHARES = 2n << WEIGHT_SHIFT;
const MAX_SHARES = (1n << 18n) << WEIGHT_SHIFT;

export type SharesMembers = ReturnType<typeof sharesMembers>;

export interface SharesGuest {
  readonly members: SharesMembers;
  readonly rootTaskGroup: GuestVirtual;
  /** Address of `sched_prio_to_weight`. */
  readonly prioToWeight: GuestVirtual;
}

/**
 * Why a kernel's groups have no weight that we could write, as a clause for a message; null if they have one. Run
 * queues do not matter here: the guest's own `update_cfs_group()` reads the word at any time.
 */
export function sharesRefusal(layout: LayoutView): string | null {
  const lack = lackOf(layout, {
    task_struct: ['sched_task_group'],
    task_group: ['shares', 'parent'],
  });
  if (lack !== undefined) return `its layout has no ${lack} (CONFIG_FAIR_GROUP_SCHED)`;
  const unknown = (['root_task_group', 'sched_prio_to_weight'] as const).filter(
    (name) => layout.symbol(name) === undefined,
  );
  return unknown.length > 0 ? `its layout has no symbol ${unknown.join(', ')}` : null;
}

/** @throws DomschedError `layout-absent-member` */
export function sharesMembers(layout: LayoutView) {
  return {
    task_struct: wordsOf(layout, 'task_struct', ['sched_task_group']),
    task_group: wordsOf(layout, 'task_group', ['shares', 'parent', 'idle?', 'autogroup?']),
    autogroup: wordsOf(layout, 'autogroup', ['nice?']),
  };
}

export class Shares {
  readonly #guest: SharesGuest;

  constructor(guest: SharesGuest) {
    this.#guest = guest;
  }

  /** The `task_group` that a thread is scheduled in. */
  groupOf(memory: MemoryView, thread: GuestVirtual): GuestVirtual {
    return follow(memory, thread, this.#guest.members.task_struct.sched_task_group);
  }

  /**
   * Plans that a thread's whole group weighs as much among groups as a process of this nice value among processes.
   * @param nice -20..19
   * @returns what must hold afterwards
   * @throws DomschedError `usage` for a nice value out of range; `refused` for a thread in the root or an idle group
   */
  plan(draft: Draft, thread: GuestVirtual, nice: number): Invariant {
    checkNice(nice);
    const { task_group, autogroup } = this.#guest.members;
    const group = this.groupOf(draft, thread);
    const refuse = (why: string) => threadRefusal(thread, why);
    if (group === this.#guest.rootTaskGroup)
      throw refuse('is in no group of its own: renice it without --group');
    const shares = get(draft, group, task_group.shares);
    if (shares < MIN_SHARES || shares > MAX_SHARES || follow(draft, group, task_group.parent) === 0n) {
      throw inconsistent(`task ${formatAddress(thread)} has a task_group with shares ${shares}`);
    }
    if (task_group.idle !== undefined && get(draft, group, task_group.idle) !== 0n)
      throw refuse('is in a group that runs only when nothing else does (cpu.idle)');
    const scale = scaleRefusal(
      this.#inTable(draft, 0),
      get(draft, this.#guest.rootTaskGroup, task_group.shares),
    );
    if (scale !== null) throw refuse(`cannot be weighed: ${scale}`);
    const weight = this.#inTable(draft, nice) << WEIGHT_SHIFT;
    put(draft, group, task_group.shares, weight, 'task_group.shares');
    const words: [GuestVirtual, Word][] = [[group, task_group.shares]];
    const automatic = task_group.autogroup === undefined ? 0n : follow(draft, group, task_group.autogroup);
    if (automatic !== 0n && autogroup.nice !== undefined) {
      put(draft, automatic as GuestVirtual, autogroup.nice, BigInt(nice), 'autogroup.nice');
      words.push([automatic as GuestVirtual, autogroup.nice]);
    }
    const what = `the group of task ${formatAddress(thread)} has shares ${weight >> WEIGHT_SHIFT}`;
    return {
      what,
      check: (memory) => {
        const same = words.every(([base, field]) => get(memory, base, field) === get(draft, base, field));
        if (!same || this.groupOf(memory, thread) !== group) throw inconsistent(`not so: ${what}`);
      },
    };
  }

  #inTable(memory: MemoryView, nice: number): bigint {
    return memory.word(advance(this.#guest.prioToWeight, 4 * (nice - LOWEST_NICE)), 4);
  }
}
