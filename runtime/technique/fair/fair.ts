/**
 * Edits of the fair schedulers' run queues (CFS and EEVDF, kernel/sched/fair.c), as `dequeue_task_fair()` and
 * `enqueue_task_fair()` make them. A thread's entity leaves its group's queue; if that queue is then empty, the group's
 * own entity leaves the queue above, and so on up to the root. Every count and sum on the way follows. A kernel without
 * groups has the root alone.
 *
 * A {@link FairDiscipline} holds what the two schedulers do differently.
 */

import type { Draft } from '../../edit/draft.ts';
import type { Invariant } from '../../edit/edit.ts';
import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, put, type Word } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';
import { checkLockFree } from '../lock.ts';
import { NICE_0_LOAD, scaledDown } from '../weights.ts';
import { Cfs } from './cfs.ts';
import { checkFairQueues, MAX_DEPTH, rootOf, SCHED_IDLE } from './check.ts';
import type { FairDiscipline } from './discipline.ts';
import { Eevdf } from './eevdf.ts';
import type { FairCpu, FairGuest, GroupMembers, SingleMembers } from './members.ts';
import { advanceAverage, type SchedAvg } from './pelt.ts';
import { RbTree } from './rb-tree.ts';
import { planReschedFlag } from './resched.ts';

/** SCHED_NORMAL, SCHED_BATCH and SCHED_IDLE, which programs pass to the kernel (include/uapi/linux/sched.h). */
const FAIR_POLICIES = [0n, 3n, SCHED_IDLE];
/** For a scheduler that is loaded as a program, "sched_ext: Implement BPF extensible scheduler class", 6.12 (uapi too). */
const SCHED_EXT = 7n;
/** From include/linux/numa.h. Where it were another number, every thread would be refused. */
const NUMA_NO_NODE = -1n;
/** MIN_SHARES (kernel/sched/sched.h): no entity counts less in the queue of all tasks, so that none is divided by 0. */
const LEAST_WEIGHT = 2n;

/** An entity and the queue that it is in, or was last in. */
interface Level {
  readonly entity: GuestVirtual;
  readonly queue: GuestVirtual;
  /** Queue that a group's entity stands for; null for a task's entity. */
  readonly own: GuestVirtual | null;
  readonly name: string;
}

export class FairSurgery {
  readonly #guest: FairGuest;
  readonly #discipline: FairDiscipline;

  /** @throws DomschedError `refused` for a UP kernel: without locks we cannot tell whether a queue is being changed */
  constructor(guest: FairGuest) {
    const { members: layout, tickNsec } = guest;
    if (layout.rq.lock.kind === 'none' || layout.task_struct.pi_lock.kind === 'none') {
      throw new DomschedError(
        'refused',
        "this kernel's run queues have no lock (UP): nobody can tell from outside whether one is being changed",
      );
    }
    this.#guest = guest;
    this.#discipline =
      layout.eevdf === undefined ? new Cfs(layout, layout.cfs!) : new Eevdf(layout, layout.eevdf, tickNsec);
  }

  /** Invariant: the fair queues of a thread's CPU are consistent. */
  invariant(memory: MemoryView, task: GuestVirtual): Invariant {
    const cpu = this.cpuOf(memory, task);
    const queues = this.#levels(memory, task).map(({ queue }) => queue);
    return {
      what: `rq[${cpu.cpu}].cfs is consistent on the way of task ${formatAddress(task)}`,
      check: (view) => checkFairQueues(this.#guest.members, this.#discipline, view, cpu, queues),
    };
  }

  /** Invariants: the fair queues of every CPU are consistent. */
  invariants(): Invariant[] {
    return this.#guest.queues.map((cpu) => ({
      what: `rq[${cpu.cpu}].cfs is consistent`,
      check: (view) => checkFairQueues(this.#guest.members, this.#discipline, view, cpu),
    }));
  }

  /** @throws DomschedError `lock-held`: try again later */
  checkLocks(memory: MemoryView, task: GuestVirtual): void {
    const { rq, task_struct } = this.#guest.members;
    checkLockFree(memory, this.cpuOf(memory, task).address, rq.lock);
    checkLockFree(memory, task, task_struct.pi_lock);
  }

  cpuOf(memory: MemoryView, task: GuestVirtual): FairCpu {
    const cpu = get(memory, task, this.#guest.members.task_struct.cpu);
    const found = this.#guest.queues.find((candidate) => BigInt(candidate.cpu) === cpu);
    if (found !== undefined) return found;
    throw inconsistent(`task ${formatAddress(task)} is on CPU ${cpu}, which has no run queue`);
  }

  /** The CPU whose `rq.curr` is this thread: it runs the thread or is about to. */
  currentOn(memory: MemoryView, task: GuestVirtual): FairCpu | undefined {
    return this.#guest.queues.find(
      ({ address }) => follow(memory, address, this.#guest.members.rq.curr) === task,
    );
  }

  /**
   * Why the queue of a thread cannot be edited, whatever the thread does.
   * @returns null when it can be edited
   */
  obstacle(memory: MemoryView, task: GuestVirtual): string | null {
    const { rq, task_struct } = this.#guest.members;
    if (!this.#isFair(memory, task))
      return 'is not in a fair queue (real-time, deadline, boosted for a lock, or of a scheduler that was loaded)';
    if (!FAIR_POLICIES.includes(get(memory, task, task_struct.policy)))
      return 'has another policy than its class';
    const { numa_preferred_nid } = task_struct;
    if (numa_preferred_nid !== undefined && get(memory, task, numa_preferred_nid) !== NUMA_NO_NODE) {
      return 'is counted by NUMA balancing';
    }
    if (
      rq.core_enabled !== undefined &&
      get(memory, this.cpuOf(memory, task).address, rq.core_enabled) !== 0n
    ) {
      return 'is under core scheduling';
    }
    return null;
  }

  /**
   * Whether a thread with an ordinary policy is of another class: of a program that the guest has loaded as its scheduler
   * (sched_ext), which may be surprised by a thread that is gone, or boosted, with somebody waiting for its lock.
   */
  isElsewhere(memory: MemoryView, task: GuestVirtual): boolean {
    const policy = get(memory, task, this.#guest.members.task_struct.policy);
    return [...FAIR_POLICIES, SCHED_EXT].includes(policy) && !this.#isFair(memory, task);
  }

  #isFair(memory: MemoryView, task: GuestVirtual): boolean {
    return follow(memory, task, this.#guest.members.task_struct.sched_class) === this.#guest.fairSchedClass;
  }

  /**
   * Whether queued threads are also counted by clamp (`uclamp_rq_inc()`), which begins when anybody in the guest first
   * asks for a clamp. A thread queued before that is in no such count (`uclamp_se.active`) and leaves none.
   */
  countsClamps(memory: MemoryView): boolean {
    const { members, uclampUsed } = this.#guest;
    if (uclampUsed === undefined || members.static_key === undefined) return false;
    return get(memory, uclampUsed, members.static_key.enabled) !== 0n;
  }

  /**
   * Whether the queues count a thread by the cache that it is to share (CONFIG_SCHED_CACHE): only a thread that runs is
   * given one, so one that has none when it is taken out has none when it is put back.
   */
  countsCache(memory: MemoryView, task: GuestVirtual): boolean {
    const { preferred_llc } = this.#guest.members.task_struct;
    return preferred_llc !== undefined && get(memory, task, preferred_llc) >= 0n;
  }

  /** Whether a thread waits in a queue for a CPU: it does not run, move to a CPU or queue, or sleep in the queue. */
  isReady(memory: MemoryView, task: GuestVirtual): boolean {
    const { task_struct, sched_entity } = this.#guest.members;
    const entity = advance(task, task_struct.se);
    const delayed = sched_entity.sched_delayed;
    return (
      get(memory, task, task_struct.on_rq) === this.#guest.bits.queued &&
      get(memory, task, task_struct.on_cpu) === 0n &&
      get(memory, entity, sched_entity.on_rq) !== 0n &&
      (delayed === undefined || get(memory, entity, delayed) === 0n) &&
      this.currentOn(memory, task) === undefined
    );
  }

  /** Whether a thread is in no queue and on no CPU. */
  isOff(memory: MemoryView, task: GuestVirtual): boolean {
    const { task_struct } = this.#guest.members;
    return (
      get(memory, task, task_struct.on_rq) === 0n &&
      get(memory, task, task_struct.on_cpu) === 0n &&
      this.currentOn(memory, task) === undefined
    );
  }

  /** Whether a group between the thread and the root has used up its time (cpu.max) or is asleep in its queue. */
  isBlocked(memory: MemoryView, task: GuestVirtual): boolean {
    const { cfs_rq, sched_entity } = this.#guest.members;
    return this.#levels(memory, task).some(({ entity, queue, own }) => {
      const throttled =
        cfs_rq.throttle_count !== undefined && get(memory, queue, cfs_rq.throttle_count) !== 0n;
      const { sched_delayed } = sched_entity;
      return (
        throttled ||
        (own !== null && sched_delayed !== undefined && get(memory, entity, sched_delayed) !== 0n)
      );
    });
  }

  /** Whether a thread may run on its CPU and that CPU takes threads. */
  hasCpu(memory: MemoryView, task: GuestVirtual): boolean {
    const { cpu } = this.cpuOf(memory, task);
    const allowed = follow(memory, task, this.#guest.members.task_struct.cpus_ptr);
    return [allowed, this.#guest.activeMask].every((mask) => {
      const byte = memory.word(advance(mask, cpu >> 3), 1);
      return (byte >> BigInt(cpu & 7)) % 2n === 1n;
    });
  }

  /**
   * Plans to take a ready thread out of its queue.
   * @returns what must hold afterwards
   */
  planDequeue(draft: Draft, task: GuestVirtual): Invariant {
    const { cfs_rq, task_struct } = this.#guest.members;
    const cpu = this.cpuOf(draft, task);
    let idle = get(draft, task, task_struct.policy) === SCHED_IDLE ? 1n : 0n;
    let leaving = true;
    const levels = this.#levels(draft, task);
    if (this.#guest.members.single !== null) this.#leaveTree(draft, inSingleQueue(levels));
    for (const level of levels) {
      if (leaving) this.#leave(draft, level, task);
      else this.#refreshGroup(draft, level);
      this.#countBelow(draft, level, -1n, idle);
      if (cfs_rq.idle !== undefined && get(draft, level.queue, cfs_rq.idle) !== 0n) idle = 1n;
      leaving &&= get(draft, level.queue, cfs_rq.nr_queued) === 0n;
    }
    this.#countRunning(draft, cpu, -1n);
    put(draft, task, task_struct.on_rq, 0n, 'task.on_rq');
    return this.#outcome(draft, task, cpu, false);
  }

  /**
   * Plans to put a thread that is in no queue into the queue of its CPU and group, and asks an idle CPU to look at it.
   * @returns what must hold afterwards
   */
  planEnqueue(draft: Draft, task: GuestVirtual): Invariant {
    const { cfs_rq, sched_entity, task_struct, rq, groups, single } = this.#guest.members;
    const cpu = this.cpuOf(draft, task);
    let idle = get(draft, task, task_struct.policy) === SCHED_IDLE ? 1n : 0n;
    let entering = true;
    const levels = this.#levels(draft, task);
    for (const level of levels) {
      entering &&= get(draft, level.entity, sched_entity.on_rq) === 0n;
      if (entering) this.#enter(draft, level, task, cpu);
      else this.#refreshGroup(draft, level);
      this.#countBelow(draft, level, 1n, idle);
      if (cfs_rq.idle !== undefined && get(draft, level.queue, cfs_rq.idle) !== 0n) idle = 1n;
    }
    if (single !== null) {
      this.#weigh(draft, levels, single.sched_entity);
      this.#enterTree(draft, inSingleQueue(levels));
    }
    if (groups !== null) this.#list(draft, cpu, levels, groups);
    this.#countRunning(draft, cpu, 1n);
    const curr = follow(draft, cpu.address, rq.curr);
    if (curr === follow(draft, cpu.address, rq.idle))
      planReschedFlag(draft, curr, this.#guest.members, this.#guest.bits.needResched);
    put(draft, task, task_struct.on_rq, this.#guest.bits.queued, 'task.on_rq');
    return this.#outcome(draft, task, cpu, true);
  }

  /** Whether a CPU has nothing to do. */
  isIdle(memory: MemoryView, { address }: FairCpu): boolean {
    const { rq } = this.#guest.members;
    return follow(memory, address, rq.curr) === follow(memory, address, rq.idle);
  }

  /** Levels from a thread's entity up to the root. @throws DomschedError `guest-inconsistent` if they lead elsewhere */
  #levels(memory: MemoryView, task: GuestVirtual): Level[] {
    const { rq, groups, task_struct } = this.#guest.members;
    const cpu = this.cpuOf(memory, task);
    const top = advance(cpu.address, rq.cfs);
    if (groups === null)
      return [{ entity: advance(task, task_struct.se), queue: top, own: null, name: `rq[${cpu.cpu}].cfs` }];
    const { cfs_rq, sched_entity } = groups;
    const levels: Omit<Level, 'name'>[] = [];
    let own: GuestVirtual | null = null;
    for (let entity = advance(task, task_struct.se); entity !== 0n; ) {
      if (levels.length === MAX_DEPTH)
        throw new DomschedError('walk-unbounded', `task ${formatAddress(task)}: its groups do not end`, {});
      const queue = follow(memory, entity, sched_entity.cfs_rq);
      if (follow(memory, queue, cfs_rq.rq) !== cpu.address)
        throw inconsistent(`task ${formatAddress(task)} has a cfs_rq that is not of rq[${cpu.cpu}]`);
      if (own !== null && follow(memory, entity, sched_entity.my_q) !== own)
        throw inconsistent(`task ${formatAddress(task)}: an entity does not stand for the queue below`);
      levels.push({ entity, queue, own });
      own = queue;
      entity = follow(memory, entity, sched_entity.parent);
    }
    if (own !== top)
      throw inconsistent(`task ${formatAddress(task)}: its groups do not end in rq[${cpu.cpu}].cfs`);
    return levels.map((level, index) => ({
      ...level,
      name: `rq[${cpu.cpu}].cfs${'/group'.repeat(levels.length - 1 - index)}`,
    }));
  }

  #leave(draft: Draft, level: Level, task: GuestVirtual): void {
    const { groups, sched_entity, single } = this.#guest.members;
    const { entity, own, name } = level;
    const isTask = own === null || groups === null;
    const runnable = isTask ? 1n : get(draft, entity, groups.sched_entity.runnable_weight);
    this.#age(draft, level, true, runnable);
    this.#refreshGroup(draft, level);
    if (single === null) this.#leaveTree(draft, level);
    this.#account(draft, level, task, -1n);
    if (own === null) this.#unlist(draft, task);
    put(draft, entity, sched_entity.on_rq, 0n, own === null ? 'task.se.on_rq' : `${name}: group's on_rq`);
  }

  #leaveTree(draft: Draft, level: Level): void {
    const { entity, queue, name } = level;
    this.#forgetBuddy(draft, level);
    this.#discipline.leave(draft, queue, entity, name);
    this.#tree(draft, level).erase(advance(entity, this.#guest.members.sched_entity.run_node));
    this.#discipline.count(draft, queue, entity, -1n, name);
  }

  #enter(draft: Draft, level: Level, task: GuestVirtual, cpu: FairCpu): void {
    const { sched_entity, rq, single } = this.#guest.members;
    const { entity, own, name } = level;
    this.#age(draft, level, false, 0n);
    this.#refreshGroup(draft, level);
    if (single === null) this.#enterTree(draft, level);
    this.#account(draft, level, task, 1n);
    if (own === null) {
      const node = advance(entity, sched_entity.group_node);
      const head = advance(cpu.address, rq.cfs_tasks);
      this.#insertAfter(draft, head, node, `rq[${cpu.cpu}].cfs_tasks`);
    }
    put(draft, entity, sched_entity.on_rq, 1n, own === null ? 'task.se.on_rq' : `${name}: group's on_rq`);
  }

  #enterTree(draft: Draft, level: Level): void {
    const { sched_entity } = this.#guest.members;
    const { entity, queue, name } = level;
    this.#discipline.place(draft, queue, entity, name);
    this.#discipline.count(draft, queue, entity, 1n, name);
    this.#tree(draft, level).insert(advance(entity, sched_entity.run_node), (other) =>
      this.#discipline.before(draft, entity, advance(other, -sched_entity.run_node)),
    );
  }

  /**
   * What a task that comes counts in the queue of all tasks, as `enqueue_hierarchy()` and `reweight_eevdf()` do it: the
   * product of its and its groups' shares of their queues. Its lag is in virtual time, which goes by that weight.
   */
  #weigh(draft: Draft, levels: readonly Level[], words: SingleMembers['sched_entity']): void {
    const { cfs_rq, sched_entity, eevdf } = this.#guest.members;
    let weight = NICE_0_LOAD;
    for (const [index, { entity, queue }] of levels.entries()) {
      const all = index === levels.length - 1 ? NICE_0_LOAD : get(draft, queue, cfs_rq.weight);
      if (all === 0n) throw inconsistent(`a queue of task ${formatAddress(entity)} weighs nothing`);
      const share = (weight * get(draft, entity, sched_entity.weight)) / all;
      weight = share > LEAST_WEIGHT ? share : LEAST_WEIGHT;
    }
    if (weight !== BigInt.asUintN(64, weight)) throw inconsistent(`a task would weigh ${weight}`);
    const { entity, name } = levels[0]!;
    const before = get(draft, entity, words.h_weight);
    if (before === weight) return;
    const { vlag } = eevdf!.sched_entity;
    const lag = BigInt.asIntN(64, get(draft, entity, vlag));
    put(draft, entity, vlag, (lag * before) / weight, `${name}: se.vlag`);
    put(draft, entity, words.h_weight, weight, `${name}: se.h_load.weight`);
    put(draft, entity, words.h_inv_weight, 0n, `${name}: se.h_load.inv_weight`);
  }

  #tree(draft: Draft, { queue, name }: Level): RbTree {
    const { rb_node, sched_entity } = this.#guest.members;
    const { augment } = this.#discipline;
    const entityOf = (node: GuestVirtual) => (node === 0n ? node : advance(node, -sched_entity.run_node));
    const renew =
      augment === null
        ? null
        : (node: GuestVirtual) => {
            const [left, right] = [rb_node.rb_left, rb_node.rb_right].map((field) =>
              follow(draft, node, field),
            );
            const entity = entityOf(node);
            const what = `${name}: entity ${formatAddress(entity)}`;
            augment(draft, entity, entityOf(left!), entityOf(right!), what);
          };
    return new RbTree(draft, rb_node, rootOf(this.#guest.members, queue, name), renew);
  }

  /** Does `__clear_buddies()` for an entity that leaves. */
  #forgetBuddy(draft: Draft, { entity, queue, name }: Level): void {
    for (const { name: buddy, field } of this.#guest.members.cfs_rq.buddies) {
      if (follow(draft, queue, field) === entity) put(draft, queue, field, 0n, `${name}.${buddy}`);
    }
  }

  /** `account_entity_enqueue()` and `account_entity_dequeue()`, without the list of tasks. */
  #account(draft: Draft, { entity, queue, own, name }: Level, task: GuestVirtual, change: 1n | -1n): void {
    const { cfs_rq, sched_entity, task_struct } = this.#guest.members;
    const weight = get(draft, queue, cfs_rq.weight) + change * get(draft, entity, sched_entity.weight);
    put(draft, queue, cfs_rq.weight, notNegative(weight, name), `${name}.load.weight`);
    // As update_load_set(): 0 makes the kernel compute the inverse when it next needs it.
    put(draft, queue, cfs_rq.inv_weight, 0n, `${name}.load.inv_weight`);
    this.#change(draft, queue, cfs_rq.nr_queued, change, `${name}.nr_queued`);
    const idle =
      own === null
        ? get(draft, task, task_struct.policy) === SCHED_IDLE
        : cfs_rq.idle !== undefined && get(draft, own, cfs_rq.idle) !== 0n;
    if (idle) this.#change(draft, queue, cfs_rq.idle_nr, change, `${name}.idle_nr_running`);
  }

  #countBelow(draft: Draft, { queue, name }: Level, change: 1n | -1n, idle: bigint): void {
    const { cfs_rq } = this.#guest.members;
    this.#change(draft, queue, cfs_rq.h_nr_queued, change, `${name}.h_nr_queued`);
    this.#change(draft, queue, cfs_rq.h_nr_runnable, change, `${name}.h_nr_runnable`);
    this.#change(draft, queue, cfs_rq.h_nr_idle, change * idle, `${name}.h_nr_idle`);
  }

  #countRunning(draft: Draft, { cpu, address }: FairCpu, change: 1n | -1n): void {
    this.#change(draft, address, this.#guest.members.rq.nr_running, change, `rq[${cpu}].nr_running`);
  }

  #change(draft: Draft, base: GuestVirtual, field: Word | undefined, change: bigint, what: string): void {
    if (field === undefined || change === 0n) return;
    put(draft, base, field, notNegative(get(draft, base, field) + change, what), what);
  }

  /** `se_update_runnable()`: a group's entity counts as runnable what is runnable below it. */
  #refreshGroup(draft: Draft, { entity, own, name }: Level): void {
    const { cfs_rq, groups } = this.#guest.members;
    if (own === null || groups === null) return;
    const runnable = get(draft, own, cfs_rq.h_nr_runnable ?? cfs_rq.h_nr_queued);
    put(draft, entity, groups.sched_entity.runnable_weight, runnable, `${name}: group's runnable_weight`);
  }

  /** Brings an entity's averages up to its queue's time, before the entity counts differently. */
  #age(draft: Draft, { entity, queue, name }: Level, queued: boolean, runnable: bigint): void {
    const { cfs_rq, sched_entity } = this.#guest.members;
    const now = get(draft, queue, cfs_rq.avg.last_update_time);
    const average = readAverage(draft, entity, sched_entity.avg);
    // The entity was never attached, or the queue never updated: the guest's own first update attaches it.
    if (average.last_update_time === 0n || now === 0n) return;
    const weight = scaledDown(get(draft, entity, sched_entity.weight));
    writeAverage(
      draft,
      entity,
      sched_entity.avg,
      advanceAverage(average, now, { queued, runnable, weight }),
      name,
    );
  }

  #unlist(draft: Draft, task: GuestVirtual): void {
    const { list_head, sched_entity, task_struct } = this.#guest.members;
    const node = advance(task, task_struct.se + sched_entity.group_node);
    const next = follow(draft, node, list_head.next);
    const prev = follow(draft, node, list_head.prev);
    put(draft, prev, list_head.next, next, 'cfs_tasks: next of the task before');
    put(draft, next, list_head.prev, prev, 'cfs_tasks: prev of the task after');
    put(draft, node, list_head.next, node, 'task.se.group_node.next');
    put(draft, node, list_head.prev, node, 'task.se.group_node.prev');
  }

  /**
   * Does `list_add_leaf_cfs_rq()` for queues that the guest took off its list while they were empty. Children stand
   * before their parents, also those that stayed when their parent went: the root goes to the end, each group right
   * before its parent.
   */
  #list(draft: Draft, cpu: FairCpu, levels: readonly Level[], { rq, cfs_rq }: GroupMembers): void {
    const { list_head } = this.#guest.members;
    const head = advance(cpu.address, rq.leaf_cfs_rq_list);
    const what = `rq[${cpu.cpu}].leaf_cfs_rq_list`;
    // What the next one stands before.
    let behind = head;
    for (const { queue, name } of levels.toReversed()) {
      const node = advance(queue, cfs_rq.leaf_cfs_rq_list);
      if (get(draft, queue, cfs_rq.on_list) === 0n) {
        this.#insertAfter(draft, follow(draft, behind, list_head.prev), node, what);
        put(draft, queue, cfs_rq.on_list, 1n, `${name}.on_list`);
      }
      behind = node;
    }
  }

  #insertAfter(draft: Draft, before: GuestVirtual, node: GuestVirtual, what: string): void {
    const { next, prev } = this.#guest.members.list_head;
    const after = follow(draft, before, next);
    put(draft, node, next, after, `${what}: next of the new node`);
    put(draft, node, prev, before, `${what}: prev of the new node`);
    put(draft, before, next, node, `${what}: next of the node before`);
    put(draft, after, prev, node, `${what}: prev of the node after`);
  }

  /**
   * Covers what the invariant on trees, lists and counts does not. Several plans may share a draft, so the expected
   * values are those at the end of the draft.
   */
  #outcome(draft: Draft, task: GuestVirtual, cpu: FairCpu, linked: boolean): Invariant {
    const { rq, cfs_rq, groups, sched_entity, task_struct, eevdf, list_head, single } = this.#guest.members;
    const words: [GuestVirtual, Word][] = [[cpu.address, rq.nr_running]];
    const group = advance(task, task_struct.se + sched_entity.group_node);
    if (!linked) words.push([group, list_head.next], [group, list_head.prev]);
    const curr = follow(draft, cpu.address, rq.curr);
    if (this.isIdle(draft, cpu)) words.push([curr, task_struct.thread_flags]);
    const own = advance(task, task_struct.se);
    if (single !== null)
      words.push([own, single.sched_entity.h_weight], [own, single.sched_entity.h_inv_weight]);
    for (const { entity, queue, own } of this.#levels(draft, task)) {
      words.push([entity, sched_entity.vruntime], [queue, cfs_rq.inv_weight], [entity, sched_entity.on_rq]);
      if (own !== null && groups !== null) words.push([entity, groups.sched_entity.runnable_weight]);
      for (const field of Object.values(sched_entity.avg)) words.push([entity, field]);
      for (const { field } of cfs_rq.buddies) words.push([queue, field]);
      if (eevdf === undefined) continue;
      words.push([queue, eevdf.cfs_rq.zero], [entity, eevdf.sched_entity.vlag]);
      words.push([entity, eevdf.sched_entity.deadline]);
      if (eevdf.sched_entity.rel_deadline !== undefined)
        words.push([entity, eevdf.sched_entity.rel_deadline]);
    }
    const what = `task ${formatAddress(task)} is ${linked ? '' : 'not '}in its fair queue`;
    return {
      what,
      check: (memory) => {
        const found = linked ? this.isReady(memory, task) : this.isOff(memory, task);
        const same = words.every(([base, field]) => get(memory, base, field) === get(draft, base, field));
        if (!found || !same) throw inconsistent(`not so: ${what}`);
      },
    };
  }
}

/** Where a task is in a kernel with one tree per CPU. @param levels from the task up to the root */
function inSingleQueue(levels: readonly Level[]): Level {
  const root = levels.at(-1)!;
  return { entity: levels[0]!.entity, queue: root.queue, own: null, name: root.name };
}

/** Members of a `sched_avg`, with offsets in the structure around it. */
type Average = Readonly<Record<keyof SchedAvg, Word>>;

function readAverage(memory: MemoryView, entity: GuestVirtual, fields: Average): SchedAvg {
  const values = Object.entries(fields).map(([name, field]) => [name, get(memory, entity, field as Word)]);
  return Object.fromEntries(values) as unknown as SchedAvg;
}

function writeAverage(
  draft: Draft,
  entity: GuestVirtual,
  fields: Average,
  average: SchedAvg,
  name: string,
): void {
  for (const key of Object.keys(fields) as (keyof SchedAvg)[]) {
    const field = fields[key];
    const value = BigInt.asUintN(8 * field.size, average[key]);
    put(draft, entity, field, value, `${name}: entity ${formatAddress(entity)}.avg.${key}`);
  }
}

function notNegative(value: bigint, what: string): bigint {
  if (value >= 0n) return value;
  throw inconsistent(`${what} would become ${value}`);
}
