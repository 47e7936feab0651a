import type { Draft } from '../../edit/draft.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put, type Word } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { advance, type GuestVirtual } from '../../memory/address.ts';
import { scaledDown, virtualTime } from '../weights.ts';
import { type FairDiscipline, isBefore, type TreeEntity } from './discipline.ts';
import type { EevdfMembers, FairMembers } from './members.ts';

/**
 * Largest shift of `sum_w_vruntime_add_paranoid()` (kernel/sched/fair.c): a bound for what a guest says. How a shift
 * counts is proved by each queue's own sums before we edit it.
 */
const MAX_SUM_SHIFT = 10n;

/**
 * Earliest eligible virtual deadline first (6.6 and later, kernel/sched/fair.c). Trees are ordered by deadline; a node
 * keeps the smallest run time (and slice) of its subtree, a queue the weighted sum of its tree's run times.
 *
 * An entity that leaves takes its lag along and gets it back when it returns, as the guest's own sleepers do, so that
 * the lag of the others does not change.
 */
export class Eevdf implements FairDiscipline {
  readonly #members: FairMembers;
  readonly #eevdf: EevdfMembers;
  readonly #tickNsec: bigint;
  /** By which an entity counts in the tree that it is in. */
  readonly #weightWord: Word;

  /** @param tickNsec TICK_NSEC of the guest, ns */
  constructor(members: FairMembers, eevdf: EevdfMembers, tickNsec: bigint) {
    this.#members = members;
    this.#eevdf = eevdf;
    this.#tickNsec = tickNsec;
    this.#weightWord = members.single?.sched_entity.h_weight ?? members.sched_entity.weight;
  }

  before(memory: MemoryView, entity: GuestVirtual, other: GuestVirtual): boolean {
    const { deadline } = this.#eevdf.sched_entity;
    return isBefore(get(memory, entity, deadline), get(memory, other, deadline));
  }

  readonly augment = (
    draft: Draft,
    entity: GuestVirtual,
    left: GuestVirtual,
    right: GuestVirtual,
    name: string,
  ): void => {
    const { min_vruntime, min_slice, max_slice } = this.#eevdf.sched_entity;
    put(draft, entity, min_vruntime, this.#smallest(draft, entity, [left, right]), `${name}.min_vruntime`);
    if (min_slice !== undefined)
      put(draft, entity, min_slice, this.#shortest(draft, entity, [left, right]), `${name}.min_slice`);
    if (max_slice !== undefined)
      put(draft, entity, max_slice, this.#longest(draft, entity, [left, right]), `${name}.max_slice`);
  };

  /** As `place_entity()`: at the queue's average less the entity's lag, with a whole slice before its deadline. */
  place(draft: Draft, queue: GuestVirtual, entity: GuestVirtual, name: string): void {
    const { sched_entity } = this.#members;
    const { deadline, vlag, slice, rel_deadline } = this.#eevdf.sched_entity;
    const average = this.#moveZero(draft, queue, name);
    const weight = get(draft, entity, this.#weightWord);
    let lag = get(draft, entity, vlag);
    const load = this.#load(draft, queue);
    // The average moves towards the newcomer: scale the lag so that what remains is the lag it had.
    if (load === 0n) lag = 0n;
    else lag = (lag * (load + this.#weight(draft, queue, entity))) / load;
    // Where the newcomer is heavy the zero goes to it, so that no sum becomes large.
    if (load > 0n && this.#weight(draft, queue, entity) > load) this.#shiftZero(draft, queue, -lag, name);
    const vruntime = BigInt.asUintN(64, average - lag);
    put(draft, entity, sched_entity.vruntime, vruntime, 'se.vruntime');
    const end = vruntime + virtualTime(get(draft, entity, slice), weight);
    put(draft, entity, deadline, BigInt.asUintN(64, end), 'se.deadline');
    if (rel_deadline !== undefined) put(draft, entity, rel_deadline, 0n, 'se.rel_deadline');
  }

  /**
   * `update_entity_lag()` clamps the lag either way to two slices, at least a tick; since "sched/fair: Fix lag clamp",
   * 6.19, to the longest slice of the queue plus a tick.
   */
  leave(draft: Draft, queue: GuestVirtual, entity: GuestVirtual, name: string): void {
    const { sched_entity } = this.#members;
    const { vlag, slice, max_slice } = this.#eevdf.sched_entity;
    const lag = BigInt.asIntN(
      64,
      this.#moveZero(draft, queue, name) - get(draft, entity, sched_entity.vruntime),
    );
    const twice = 2n * get(draft, entity, slice);
    const tick = this.#tickNsec;
    const most = max_slice !== undefined ? this.#longestOf(draft, queue) + tick : twice > tick ? twice : tick;
    const limit = virtualTime(most, get(draft, entity, this.#weightWord));
    put(draft, entity, vlag, lag > limit ? limit : lag < -limit ? -limit : lag, 'se.vlag');
  }

  count(draft: Draft, queue: GuestVirtual, entity: GuestVirtual, change: 1n | -1n, name: string): void {
    const { avg_vruntime, avg_load } = this.#eevdf.cfs_rq;
    const weight = this.#weight(draft, queue, entity);
    const before = BigInt.asIntN(64, get(draft, queue, avg_vruntime));
    const sum = before + change * this.#key(draft, queue, entity) * weight;
    // From here on sum_w_vruntime_add_paranoid() would make the kernel count in smaller weights.
    if (sum !== BigInt.asIntN(64, sum)) throw inconsistent(`${name}.avg_vruntime would overflow`);
    put(draft, queue, avg_vruntime, BigInt.asUintN(64, sum), `${name}.avg_vruntime`);
    const load = get(draft, queue, avg_load) + change * weight;
    put(draft, queue, avg_load, BigInt.asUintN(64, load), `${name}.avg_load`);
  }

  check(memory: MemoryView, queue: GuestVirtual, nodes: readonly TreeEntity[], name: string): void {
    const { avg_vruntime, avg_load } = this.#eevdf.cfs_rq;
    const { min_vruntime, min_slice, max_slice } = this.#eevdf.sched_entity;
    let sum = 0n;
    let load = 0n;
    for (const [index, { entity, left, right }] of nodes.entries()) {
      if (index > 0 && this.before(memory, entity, nodes[index - 1]!.entity)) {
        throw inconsistent(`${name}: entities are not in the order of deadline`);
      }
      const weight = this.#weight(memory, queue, entity);
      sum += this.#key(memory, queue, entity) * weight;
      load += weight;
      if (get(memory, entity, min_vruntime) !== this.#smallest(memory, entity, [left, right])) {
        throw inconsistent(`${name}: an entity's min_vruntime is not its subtree's`);
      }
      if (min_slice === undefined) continue;
      if (get(memory, entity, min_slice) !== this.#shortest(memory, entity, [left, right])) {
        throw inconsistent(`${name}: an entity's min_slice is not its subtree's`);
      }
      if (max_slice === undefined) continue;
      if (get(memory, entity, max_slice) !== this.#longest(memory, entity, [left, right])) {
        throw inconsistent(`${name}: an entity's max_slice is not its subtree's`);
      }
    }
    if (get(memory, queue, avg_load) !== load) throw inconsistent(`${name}.avg_load is not its tree's`);
    if (BigInt.asUintN(64, get(memory, queue, avg_vruntime) - sum) !== 0n) {
      throw inconsistent(`${name}.avg_vruntime is not its tree's`);
    }
  }

  /**
   * `avg_vruntime()`: the weighted average of the queue's run times, rounded down. We move the zero of the sums where
   * the kernel moves it with every reading.
   */
  #moveZero(draft: Draft, queue: GuestVirtual, name: string): bigint {
    const { avg_vruntime, zero, zeroMoves } = this.#eevdf.cfs_rq;
    const curr = this.#current(draft, queue);
    const load = this.#load(draft, queue);
    let sum = get(draft, queue, avg_vruntime);
    if (curr !== null) sum += this.#key(draft, queue, curr) * this.#weight(draft, queue, curr);
    // Division rounds towards zero, the average rounds down.
    if (sum < 0n) sum -= load - 1n;
    const delta = load === 0n ? 0n : sum / load;
    const base = get(draft, queue, zero);
    const average = BigInt.asUintN(64, base + delta);
    if (zeroMoves) this.#shiftZero(draft, queue, delta, name);
    return average;
  }

  /** `update_zero_vruntime()`: the sums are relative to the zero. */
  #shiftZero(draft: Draft, queue: GuestVirtual, delta: bigint, name: string): void {
    const { avg_vruntime, avg_load, zero, zeroMoves } = this.#eevdf.cfs_rq;
    if (!zeroMoves) return;
    const moved = get(draft, queue, avg_vruntime) - get(draft, queue, avg_load) * delta;
    put(draft, queue, zero, BigInt.asUintN(64, get(draft, queue, zero) + delta), `${name}.zero_vruntime`);
    put(draft, queue, avg_vruntime, BigInt.asUintN(64, moved), `${name}.avg_vruntime`);
  }

  #current(memory: MemoryView, queue: GuestVirtual): GuestVirtual | null {
    const curr = follow(memory, queue, this.#members.cfs_rq.curr);
    return curr !== 0n && get(memory, curr, this.#members.sched_entity.on_rq) !== 0n ? curr : null;
  }

  /** Load of the tree and the running entity. */
  #load(memory: MemoryView, queue: GuestVirtual): bigint {
    const curr = this.#current(memory, queue);
    const running = curr === null ? 0n : this.#weight(memory, queue, curr);
    return get(memory, queue, this.#eevdf.cfs_rq.avg_load) + running;
  }

  /** `avg_vruntime_weight()`: the weight of an entity in the sums of its queue. */
  #weight(memory: MemoryView, queue: GuestVirtual, entity: GuestVirtual): bigint {
    const { sum_shift } = this.#eevdf.cfs_rq;
    const weight = get(memory, entity, this.#weightWord);
    if (sum_shift === undefined) return scaledDown(weight);
    const shift = get(memory, queue, sum_shift);
    if (shift > MAX_SUM_SHIFT) throw inconsistent(`a queue's sum_shift is ${shift}`);
    const less = weight >> shift;
    return shift > 0n && less < 2n ? 2n : less;
  }

  #key(memory: MemoryView, queue: GuestVirtual, entity: GuestVirtual): bigint {
    const vruntime = get(memory, entity, this.#members.sched_entity.vruntime);
    return BigInt.asIntN(64, vruntime - get(memory, queue, this.#eevdf.cfs_rq.zero));
  }

  #smallest(memory: MemoryView, entity: GuestVirtual, children: readonly GuestVirtual[]): bigint {
    const { min_vruntime } = this.#eevdf.sched_entity;
    return this.#best(memory, entity, this.#members.sched_entity.vruntime, children, min_vruntime, isBefore);
  }

  #shortest(memory: MemoryView, entity: GuestVirtual, children: readonly GuestVirtual[]): bigint {
    const { slice, min_slice } = this.#eevdf.sched_entity;
    return this.#best(memory, entity, slice, children, min_slice!, (a, b) => a < b);
  }

  #longest(memory: MemoryView, entity: GuestVirtual, children: readonly GuestVirtual[]): bigint {
    const { slice, max_slice } = this.#eevdf.sched_entity;
    return this.#best(memory, entity, slice, children, max_slice!, (a, b) => a > b);
  }

  /** `cfs_rq_max_slice()`: the longest slice of the tree and the running entity. */
  #longestOf(memory: MemoryView, queue: GuestVirtual): bigint {
    const { cfs_rq, sched_entity } = this.#members;
    const { slice, max_slice } = this.#eevdf.sched_entity;
    const curr = this.#current(memory, queue);
    const running = curr === null ? 0n : get(memory, curr, slice);
    const root = follow(memory, queue, cfs_rq.root);
    const waiting = root === 0n ? 0n : get(memory, advance(root, -sched_entity.run_node), max_slice!);
    return running > waiting ? running : waiting;
  }

  #best(
    memory: MemoryView,
    entity: GuestVirtual,
    own: Word,
    children: readonly GuestVirtual[],
    theirs: Word,
    less: (a: bigint, b: bigint) => boolean,
  ): bigint {
    return children
      .filter((child) => child !== 0n)
      .map((child) => get(memory, child, theirs))
      .reduce((best, value) => (less(value, best) ? value : best), get(memory, entity, own));
  }
}
