import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get, type Word } from '../../edit/member.ts';
import type { MemoryView } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';
import { AddressMap, AddressSet } from '../../memory/address-map.ts';
import type { FairDiscipline, TreeEntity } from './discipline.ts';
import type { FairCpu, FairMembers, GroupMembers, SingleMembers } from './members.ts';
import { checkedNodes, type RbRoot } from './rb-tree.ts';

/** Bounds every walk: a CPU with more entities than this is a lie. */
const MAX_ENTITIES = 65_536;
/** Bounds how deep groups may be nested. */
export const MAX_DEPTH = 64;
/** include/linux/sched.h, SCHED_IDLE. */
export const SCHED_IDLE = 5n;

/** Counts that a queue keeps of everything below it. */
interface Counts {
  readonly queued: bigint;
  readonly runnable: bigint;
  readonly idle: bigint;
}

/** Addresses of the tree of a `cfs_rq`. */
export function rootOf(members: FairMembers, queue: GuestVirtual, name: string): RbRoot {
  return {
    node: advance(queue, members.cfs_rq.root.offset),
    leftmost: advance(queue, members.cfs_rq.leftmost.offset),
    name,
  };
}

/**
 * Checks all fair queues of one CPU: every tree, every count and sum of each group's queue up to the root, the list of
 * tasks and the list of queues.
 * @param also queues to check even if they are empty and therefore in no queue above
 * @throws DomschedError `guest-inconsistent`, `walk-unbounded`
 */
export function checkFairQueues(
  members: FairMembers,
  discipline: FairDiscipline,
  memory: MemoryView,
  cpu: FairCpu,
  also: readonly GuestVirtual[] = [],
): void {
  new FairCheck(members, discipline, memory, cpu).run(also);
}

class FairCheck {
  readonly #members: FairMembers;
  readonly #discipline: FairDiscipline;
  readonly #memory: MemoryView;
  readonly #cpu: FairCpu;
  readonly #tasks = new AddressSet<GuestVirtual>();
  readonly #queues = new AddressSet<GuestVirtual>();
  /** Where one tree has the tasks of all groups: what is in each group's queue. */
  readonly #inGroups = new AddressMap<GuestVirtual, GuestVirtual[]>();
  #entities = 0;

  constructor(members: FairMembers, discipline: FairDiscipline, memory: MemoryView, cpu: FairCpu) {
    this.#members = members;
    this.#discipline = discipline;
    this.#memory = memory;
    this.#cpu = cpu;
  }

  run(also: readonly GuestVirtual[]): void {
    const { rq, groups, single } = this.#members;
    const name = `rq[${this.#cpu.cpu}]`;
    const top = advance(this.#cpu.address, rq.cfs);
    if (single !== null) this.#collect(top, `${name}.cfs`, single);
    this.#queue(top, `${name}.cfs`, 0);
    for (const queue of also.toReversed())
      if (!this.#queues.has(queue)) this.#queue(queue, `${name}.cfs/group`, 0);
    this.#checkTaskList(advance(this.#cpu.address, rq.cfs_tasks), `${name}.cfs_tasks`);
    if (groups !== null) this.#checkLeafList(name, groups);
  }

  #queue(queue: GuestVirtual, name: string, depth: number): Counts {
    const { cfs_rq, groups, sched_entity, single } = this.#members;
    const memory = this.#memory;
    if (depth > MAX_DEPTH || this.#queues.has(queue)) {
      throw new DomschedError('walk-unbounded', `${name}: its groups do not end`, {});
    }
    this.#queues.add(queue);
    if (groups !== null && follow(memory, queue, groups.cfs_rq.rq) !== this.#cpu.address)
      throw inconsistent(`${name} is of another CPU`);
    const present = single === null ? this.#inTree(queue, name) : (this.#inGroups.get(queue) ?? []);
    let weight = 0n;
    let idleEntities = 0n;
    const below = { queued: 0n, runnable: 0n, idle: 0n };
    for (const entity of present) {
      const counts = this.#entity(queue, entity, name, depth);
      below.queued += counts.queued;
      below.runnable += counts.runnable;
      below.idle += counts.idle;
      weight += get(memory, entity, sched_entity.weight);
      if (this.#isIdle(entity)) idleEntities += 1n;
    }
    this.#expect(queue, cfs_rq.nr_queued, BigInt(present.length), `${name}.nr_queued`);
    this.#expect(queue, cfs_rq.weight, weight, `${name}.load.weight`);
    this.#expect(queue, cfs_rq.idle_nr, idleEntities, `${name}.idle_nr_running`);
    this.#expect(queue, cfs_rq.h_nr_queued, below.queued, `${name}.h_nr_queued`);
    this.#expect(queue, cfs_rq.h_nr_runnable, below.runnable, `${name}.h_nr_runnable`);
    this.#expect(queue, cfs_rq.h_nr_idle, below.idle, `${name}.h_nr_idle`);
    const idle = cfs_rq.idle !== undefined && get(memory, queue, cfs_rq.idle) !== 0n;
    return idle ? { ...below, idle: below.queued } : below;
  }

  /** Entities of a queue's tree and the running one. */
  #inTree(queue: GuestVirtual, name: string): GuestVirtual[] {
    const { cfs_rq, sched_entity, rb_node } = this.#members;
    const memory = this.#memory;
    const left = MAX_ENTITIES - this.#entities;
    const nodes = checkedNodes(memory, rb_node, rootOf(this.#members, queue, name), left);
    this.#entities += nodes.length;
    const tree = nodes.map((node) => this.#treeEntity(node));
    this.#discipline.check(memory, queue, tree, name);
    const present = tree.map(({ entity }) => entity);
    const curr = follow(memory, queue, cfs_rq.curr);
    if (curr !== 0n && present.includes(curr)) throw inconsistent(`${name}.curr is in its tree`);
    if (curr !== 0n && get(memory, curr, sched_entity.on_rq) !== 0n) present.push(curr);
    for (const { name: buddy, field } of cfs_rq.buddies) {
      const found = follow(memory, queue, field);
      if (found !== 0n && !present.includes(found)) throw inconsistent(`${name}.${buddy} is not queued`);
    }
    return present;
  }

  /**
   * Finds what is in each group's queue where one tree has the tasks of all groups: each task, and the entities of the
   * groups around it. On the way of the task that runs, `h_curr` is the entity of each queue.
   */
  #collect(top: GuestVirtual, name: string, { cfs_rq: { h_curr } }: SingleMembers): void {
    const { cfs_rq } = this.#members;
    const known = new AddressSet<GuestVirtual>();
    for (const task of this.#inTree(top, name)) {
      for (const { entity, queue } of this.#wayUp(task, top, name)) {
        if (known.has(entity)) break;
        known.add(entity);
        const present = this.#inGroups.get(queue) ?? [];
        if (present.length === 0) this.#inGroups.set(queue, present);
        present.push(entity);
      }
    }
    const curr = follow(this.#memory, top, cfs_rq.curr);
    if (curr === 0n) {
      if (follow(this.#memory, top, h_curr) !== 0n) throw inconsistent(`${name}.h_curr is not its curr`);
      return;
    }
    for (const { entity, queue } of this.#wayUp(curr, top, name))
      if (follow(this.#memory, queue, h_curr) !== entity)
        throw inconsistent(`${name}: h_curr is not on the way of its curr`);
  }

  /** A task's entity and those of the groups around it, each with its queue. */
  #wayUp(
    task: GuestVirtual,
    top: GuestVirtual,
    name: string,
  ): { entity: GuestVirtual; queue: GuestVirtual }[] {
    const { groups } = this.#members;
    if (groups === null) return [{ entity: task, queue: top }];
    const way: { entity: GuestVirtual; queue: GuestVirtual }[] = [];
    for (let entity = task; entity !== 0n; ) {
      if (way.length === MAX_DEPTH)
        throw new DomschedError('walk-unbounded', `${name}: its groups do not end`, {});
      const own = follow(this.#memory, entity, groups.sched_entity.my_q);
      if (own !== (way.at(-1)?.queue ?? 0n))
        throw inconsistent(`${name}: an entity does not stand for the queue below`);
      way.push({ entity, queue: follow(this.#memory, entity, groups.sched_entity.cfs_rq) });
      entity = follow(this.#memory, entity, groups.sched_entity.parent);
    }
    if (way.at(-1)?.queue !== top) throw inconsistent(`${name}: groups of a task end elsewhere`);
    return way;
  }

  #treeEntity(node: GuestVirtual): TreeEntity {
    const { sched_entity, rb_node } = this.#members;
    const child = (address: GuestVirtual) =>
      address === 0n ? address : advance(address, -sched_entity.run_node);
    return {
      entity: advance(node, -sched_entity.run_node),
      left: child(follow(this.#memory, node, rb_node.rb_left)),
      right: child(follow(this.#memory, node, rb_node.rb_right)),
    };
  }

  #entity(queue: GuestVirtual, entity: GuestVirtual, name: string, depth: number): Counts {
    const { groups, sched_entity, task_struct } = this.#members;
    const memory = this.#memory;
    const where = `${name}: entity ${formatAddress(entity)}`;
    if (get(memory, entity, sched_entity.on_rq) !== 1n)
      throw inconsistent(`${where} is not marked as queued`);
    if (groups !== null && follow(memory, entity, groups.sched_entity.cfs_rq) !== queue)
      throw inconsistent(`${where} is another queue's`);
    const delayed =
      sched_entity.sched_delayed !== undefined && get(memory, entity, sched_entity.sched_delayed) !== 0n;
    const own = this.#ownQueue(entity);
    if (own !== null) return this.#queue(own, `${name}/group`, depth + 1);
    const task = advance(entity, -task_struct.se);
    this.#tasks.add(task);
    if (get(memory, task, task_struct.on_rq) === 0n) throw inconsistent(`${where}: its task is not queued`);
    return { queued: 1n, runnable: delayed ? 0n : 1n, idle: this.#isIdle(entity) ? 1n : 0n };
  }

  /** The queue that a group's entity stands for; null for a task's entity. */
  #ownQueue(entity: GuestVirtual): GuestVirtual | null {
    const { groups } = this.#members;
    const own = groups === null ? 0n : follow(this.#memory, entity, groups.sched_entity.my_q);
    return own === 0n ? null : (own as GuestVirtual);
  }

  #isIdle(entity: GuestVirtual): boolean {
    const { cfs_rq, task_struct } = this.#members;
    const own = this.#ownQueue(entity);
    if (own !== null) return cfs_rq.idle !== undefined && get(this.#memory, own, cfs_rq.idle) !== 0n;
    return get(this.#memory, advance(entity, -task_struct.se), task_struct.policy) === SCHED_IDLE;
  }

  /** The list must hold every task of the trees. It may hold more, because tasks of throttled groups are in no tree. */
  #checkTaskList(head: GuestVirtual, name: string): void {
    const { sched_entity, task_struct } = this.#members;
    const offset = task_struct.se + sched_entity.group_node;
    const listed = new AddressSet(this.#list(head, name).map((node) => advance(node, -offset)));
    for (const task of this.#tasks) {
      if (!listed.has(task)) throw inconsistent(`${name} lacks task ${formatAddress(task)}`);
    }
    for (const task of listed) {
      if (get(this.#memory, task, task_struct.on_rq) === 0n)
        throw inconsistent(`${name} has task ${formatAddress(task)}, which is not queued`);
    }
  }

  /** Every queue that is not empty must be listed, children before their parents. */
  #checkLeafList(name: string, { rq, cfs_rq }: GroupMembers): void {
    const memory = this.#memory;
    const head = advance(this.#cpu.address, rq.leaf_cfs_rq_list);
    if (follow(memory, this.#cpu.address, rq.tmp_alone_branch) !== head) {
      throw inconsistent(`${name}.tmp_alone_branch is not its list of queues`);
    }
    const order = this.#list(head, `${name}.leaf_cfs_rq_list`).map((node) =>
      advance(node, -cfs_rq.leaf_cfs_rq_list),
    );
    const place = new AddressMap<GuestVirtual, number>();
    for (const [index, queue] of order.entries()) place.set(queue, index);
    for (const queue of order) {
      if (get(memory, queue, cfs_rq.on_list) !== 1n)
        throw inconsistent(`${name}: a listed queue is not marked`);
    }
    for (const queue of this.#queues) {
      const at = place.get(queue);
      if (at === undefined && get(memory, queue, this.#members.cfs_rq.nr_queued) !== 0n) {
        throw inconsistent(`${name}: a queue that is not empty is not listed`);
      }
      if (at === undefined && get(memory, queue, cfs_rq.on_list) !== 0n) {
        throw inconsistent(`${name}: a queue is marked as listed and is not`);
      }
      for (const entity of this.#entitiesOf(queue)) {
        const own = this.#ownQueue(entity);
        const below = own === null ? undefined : place.get(own);
        if (below !== undefined && at !== undefined && below > at)
          throw inconsistent(`${name}: a group's queue is listed behind its parent's`);
      }
    }
  }

  #entitiesOf(queue: GuestVirtual): GuestVirtual[] {
    if (this.#members.single !== null) return this.#inGroups.get(queue) ?? [];
    const root = rootOf(this.#members, queue, 'tree');
    const nodes = checkedNodes(this.#memory, this.#members.rb_node, root, MAX_ENTITIES);
    return nodes.map((node) => advance(node, -this.#members.sched_entity.run_node));
  }

  #list(head: GuestVirtual, name: string): GuestVirtual[] {
    const { next, prev } = this.#members.list_head;
    const nodes: GuestVirtual[] = [];
    let previous = head;
    for (let node = follow(this.#memory, head, next); ; node = follow(this.#memory, node, next)) {
      if (follow(this.#memory, node, prev) !== previous)
        throw inconsistent(`${name}: node ${formatAddress(node)} does not link back`);
      if (node === head) return nodes;
      if (nodes.length === MAX_ENTITIES)
        throw new DomschedError('walk-unbounded', `${name} does not end`, {});
      nodes.push(node);
      previous = node;
    }
  }

  #expect(queue: GuestVirtual, field: Word | undefined, expected: bigint, name: string): void {
    if (field === undefined) return;
    const found = get(this.#memory, queue, field);
    if (found !== expected) throw inconsistent(`${name} is ${found}, and what it has makes ${expected}`);
  }
}
