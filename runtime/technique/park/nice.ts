/**
 * Gives a thread that is in no run queue another nice value, as `set_user_nice()` and `reweight_entity()` do
 * (kernel/sched/core.c, kernel/sched/fair.c). A running or ready thread is parked first: its own `schedule()` takes it
 * out of the tree, and its own wake-up places it anew with the new weight. So we never edit the tree, `min_vruntime` or
 * a deadline.
 */

import type { Draft } from '../../edit/draft.ts';
import type { Invariant } from '../../edit/edit.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put, wordsOf } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { lockOf } from '../../guest/locks.ts';
import type { LayoutView } from '../../layout/view.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';
import { checkLockFree } from '../lock.ts';
import type { NiceBits } from '../proved-bits.ts';
import { threadRefusal } from '../refusal.ts';
import { checkNice, NICE_LEVELS, scaledDown, WEIGHT_SHIFT } from '../weights.ts';

/**
 * MAX_RT_PRIO, the priority of nice 0 (include/linux/sched/prio.h), and the shift of weights. They are proved on every
 * thread that we renice: its present weight has to be the one that the guest's own tables have for its priority.
 */
const FIRST_FAIR_PRIO = 100;
const NICE_ZERO_PRIO = 120;
/**
 * SCHED_NORMAL and SCHED_BATCH, which have the weight of their nice value. Programs pass these numbers to
 * `sched_setscheduler()`, so no kernel can change them (include/uapi/linux/sched.h).
 */
const WEIGHTED_POLICIES = [0n, 3n];

/** Members that a new nice value needs from a guest's layout. */
export type NiceMembers = ReturnType<typeof niceMembers>;

/** @throws DomschedError `layout-absent-member` */
export function niceMembers(layout: LayoutView) {
  const { se } = wordsOf(layout, 'task_struct', ['se']);
  const entity = wordsOf(layout, 'sched_entity', ['avg'], se);
  const queue = wordsOf(layout, 'cfs_rq', ['avg', 'rq?']);
  return {
    task_struct: {
      ...wordsOf(layout, 'task_struct', ['state', 'on_cpu', 'on_rq', 'prio', 'static_prio', 'normal_prio']),
      ...wordsOf(layout, 'task_struct', ['policy', 'sched_class', 'cpu']),
      pi_lock: lockOf(layout, 'task_struct', 'pi_lock'),
      ...wordsOf(layout, 'sched_entity', ['weight', 'inv_weight', 'cfs_rq?', 'vlag?'], se),
      ...wordsOf(layout, 'sched_avg', ['load_sum', 'load_avg', 'period_contrib'], entity.avg),
    },
    cfs_rq: { rq: queue.rq, ...wordsOf(layout, 'sched_avg', ['load_sum', 'load_avg'], queue.avg) },
    rq: { lock: lockOf(layout, 'rq', 'lock'), ...wordsOf(layout, 'rq', ['cfs']) },
  };
}

/** Addresses that a new nice value needs. */
export interface NiceGuest {
  readonly members: NiceMembers;
  readonly bits: NiceBits;
  readonly fairSchedClass: GuestVirtual;
  readonly prioToWeight: GuestVirtual;
  readonly prioToWmult: GuestVirtual;
  readonly queues: readonly { readonly cpu: number; readonly address: GuestVirtual }[];
}

/** Load of each `cfs_rq` at the end of one plan: several of its threads may get another weight. */
type GroupLoads = Map<GuestVirtual, { readonly average: bigint; readonly sum: bigint }>;

export class Renice {
  readonly #guest: NiceGuest;
  readonly #loads = new WeakMap<Draft, GroupLoads>();

  constructor(guest: NiceGuest) {
    this.#guest = guest;
  }

  /**
   * Plans another nice value.
   * @param nice -20..19
   * @returns what must hold afterwards; `later` for a thread that is in a run queue, or about to be
   * @throws DomschedError `usage` for a nice value out of range; `refused` for a thread whose weight is not that of its
   *   nice value; `lock-held`
   */
  plan(draft: Draft, task: GuestVirtual, nice: number): Invariant[] | 'later' {
    checkNice(nice);
    const { members: layout, queues } = this.#guest;
    const { task_struct, cfs_rq } = layout;
    const minDivider = this.#guest.bits.minDivider();
    this.#checkFair(draft, task);
    if (this.#isQueued(draft, task)) return 'later';
    checkLockFree(draft, task, task_struct.pi_lock);
    const cpu = get(draft, task, task_struct.cpu);
    const queue = queues.find((candidate) => BigInt(candidate.cpu) === cpu);
    if (queue === undefined)
      throw inconsistent(`task ${formatAddress(task)} is on CPU ${cpu}, which has no run queue`);
    checkLockFree(draft, queue.address, layout.rq.lock);
    // Without CONFIG_FAIR_GROUP_SCHED all threads of a CPU are in one queue.
    const group =
      task_struct.cfs_rq === undefined
        ? advance(queue.address, layout.rq.cfs)
        : follow(draft, task, task_struct.cfs_rq);
    if (cfs_rq.rq !== undefined && follow(draft, group, cfs_rq.rq) !== queue.address) {
      throw inconsistent(`task ${formatAddress(task)} has a cfs_rq that is not of rq[${cpu}]`);
    }

    const prio = NICE_ZERO_PRIO + nice;
    const { weight, inverse } = this.#weightOf(draft, prio);
    const old = get(draft, task, task_struct.weight);
    const sum = get(draft, task, task_struct.load_sum);
    const oldAverage = get(draft, task, task_struct.load_avg);
    const divider = minDivider + get(draft, task, task_struct.period_contrib);
    const average = (scaledDown(weight) * sum) / divider;
    // As dequeue_load_avg() and then enqueue_load_avg(): a sleeper's share of its queue's load fades, it does not
    // leave.
    const groupAverage = atLeastZero(get(draft, group, cfs_rq.load_avg) - oldAverage);
    const left = atLeastZero(get(draft, group, cfs_rq.load_sum) - scaledDown(old) * sum);
    const groupSum = max(left, groupAverage * minDivider);

    for (const name of ['static_prio', 'normal_prio', 'prio'] as const) {
      put(draft, task, task_struct[name], BigInt(prio), `task.${name}`);
    }
    put(draft, task, task_struct.weight, weight, 'task.se.load.weight');
    put(draft, task, task_struct.inv_weight, inverse, 'task.se.load.inv_weight');
    put(draft, task, task_struct.load_avg, average, 'task.se.avg.load_avg');
    put(draft, group, cfs_rq.load_avg, groupAverage + average, `cfs_rq[${cpu}].avg.load_avg`);
    put(draft, group, cfs_rq.load_sum, groupSum + scaledDown(weight) * sum, `cfs_rq[${cpu}].avg.load_sum`);
    const lag = this.#scaleLag(draft, task, old, weight);
    const loads = this.#loads.get(draft) ?? new Map();
    this.#loads.set(draft, loads);
    loads.set(group, { average: groupAverage + average, sum: groupSum + scaledDown(weight) * sum });
    return [this.#outcome(task, prio, lag, group, loads)];
  }

  /** The lag is in virtual time, so it grows as the weight shrinks. */
  #scaleLag(draft: Draft, task: GuestVirtual, old: bigint, weight: bigint): bigint | null {
    const { vlag } = this.#guest.members.task_struct;
    if (vlag === undefined) return null;
    const lag = (get(draft, task, vlag) * old) / weight;
    put(draft, task, vlag, lag, 'task.se.vlag');
    return lag;
  }

  #checkFair(memory: MemoryView, task: GuestVirtual): void {
    const { task_struct } = this.#guest.members;
    const refuse = (why: string) => threadRefusal(task, why);
    if (follow(memory, task, task_struct.sched_class) !== this.#guest.fairSchedClass) {
      throw refuse('is not scheduled by nice values (real-time, deadline, or boosted for a lock)');
    }
    if (!WEIGHTED_POLICIES.includes(get(memory, task, task_struct.policy))) {
      throw refuse('has a policy that takes no account of nice values (SCHED_IDLE)');
    }
    const prio = get(memory, task, task_struct.static_prio);
    if (prio !== get(memory, task, task_struct.prio) || prio !== get(memory, task, task_struct.normal_prio)) {
      throw refuse('has another priority than its nice value gives');
    }
    const { weight, inverse } = this.#weightOf(memory, Number(prio));
    const found = get(memory, task, task_struct.weight);
    if (found !== weight || get(memory, task, task_struct.inv_weight) !== inverse) {
      throw refuse(`has weight ${found}, not the ${weight} of its nice value`);
    }
  }

  #isQueued(memory: MemoryView, task: GuestVirtual): boolean {
    const { task_struct } = this.#guest.members;
    const state = get(memory, task, task_struct.state);
    const busy = get(memory, task, task_struct.on_rq) !== 0n || get(memory, task, task_struct.on_cpu) !== 0n;
    return busy || (state & this.#guest.bits.waking) !== 0n;
  }

  /** Reads the guest's own tables. @throws DomschedError `guest-inconsistent` for a priority that is not in them */
  #weightOf(memory: MemoryView, prio: number): { weight: bigint; inverse: bigint } {
    const index = prio - FIRST_FAIR_PRIO;
    if (index < 0 || index >= NICE_LEVELS) throw inconsistent(`priority ${prio} is of no nice value`);
    const at = 4 * index;
    return {
      weight: memory.word(advance(this.#guest.prioToWeight, at), 4) << WEIGHT_SHIFT,
      inverse: memory.word(advance(this.#guest.prioToWmult, at), 4),
    };
  }

  #outcome(
    task: GuestVirtual,
    prio: number,
    lag: bigint | null,
    group: GuestVirtual,
    loads: GroupLoads,
  ): Invariant {
    const what = `task ${formatAddress(task)} has nice ${prio - NICE_ZERO_PRIO} and its weight`;
    return {
      what,
      check: (memory) => {
        const { task_struct, cfs_rq } = this.#guest.members;
        // Checks that priorities and weights agree with each other and with the guest's tables.
        this.#checkFair(memory, task);
        const divider = this.#guest.bits.minDivider() + get(memory, task, task_struct.period_contrib);
        const load =
          scaledDown(get(memory, task, task_struct.weight)) * get(memory, task, task_struct.load_sum);
        const { vlag } = task_struct;
        const expected = loads.get(group)!;
        const holds =
          get(memory, task, task_struct.static_prio) === BigInt(prio) &&
          get(memory, task, task_struct.load_avg) === load / divider &&
          get(memory, group, cfs_rq.load_avg) === expected.average &&
          get(memory, group, cfs_rq.load_sum) === expected.sum &&
          (vlag === undefined || get(memory, task, vlag) === lag);
        if (!holds) throw inconsistent(`not so: ${what}`);
      },
    };
  }
}

function atLeastZero(value: bigint): bigint {
  return max(value, 0n);
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
