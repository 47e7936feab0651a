import { DomschedError } from '../error.ts';
import type { AddressSpace } from '../memory/types.ts';
import { Arena, type ObjectTable } from './arena.ts';
import type { Description } from './description.ts';
import { lockHeld } from './locks.ts';
import { type KernelPointer, movePointer, NO_POINTER, pointerAddress } from './pointer.ts';
import type { FairSlots, O1Slots, QueueSlots, RealtimeSlots } from './queue-slots.ts';
import type { PointerSlot } from './shape.ts';
import type { TaskSlots } from './task-slots.ts';

/** The part of the scheduler that a queued task was found in. */
export const QUEUE_CLASS = { active: 0, expired: 1, fair: 2, realtime: 3, stop: 4 } as const;
export const QUEUE_CLASS_NAMES = ['active', 'expired', 'fair', 'realtime', 'stop'] as const;

/** Bounds nested groups far above what cgroup trees reach (cgroup.max.depth of real systems is below 32). */
const MAX_GROUPS = 16_384;
const MAX_CPUS = 4096;
const INITIAL = 128;

/** Kinds of nodes in the frontier. */
const O1_NODE = 0;
const TREE_NODE = 1;
const REALTIME_NODE = 2;
/** A tree node that belonged to a task at the last look; it is read as part of the task. */
const TASK_NODE = 3;

/** Tables of a guest's arena that run queues need. */
export interface QueueTables {
  readonly queues: ObjectTable;
  /** Of an arena of their own: they are read once more after all else. */
  readonly keys: ObjectTable;
  readonly keyArena: Arena;
  readonly tasks: ObjectTable<Description>;
  readonly fairQueues: ObjectTable;
  readonly entities: ObjectTable;
}

/** Makes the tables. `maxTasks` is the most tasks that a guest may have. */
export function queueTables(arena: Arena, slots: QueueSlots, task: TaskSlots, maxTasks: number): QueueTables {
  const { fair } = slots;
  const keyArena = new Arena();
  return {
    keyArena,
    queues: arena.table('rq', slots.shape, MAX_CPUS),
    keys: keyArena.table('rq', slots.key.shape, MAX_CPUS),
    tasks: arena.table('task_struct', task.shape, maxTasks),
    fairQueues: arena.table('cfs_rq', fair?.shape ?? slots.key.shape, MAX_GROUPS + MAX_CPUS),
    entities: arena.table('sched_entity', fair?.entity.shape ?? slots.key.shape, maxTasks + MAX_GROUPS),
  };
}

/**
 * Walks the run queues of all CPUs over copies of the guest's objects, breadth first: each scatter read shows what the
 * next one must ask for. Each link is checked both ways and each queue against its counters, so a walk over memory that
 * changes or lies ends in a contradiction and never in an endless loop.
 *
 * Results are columns, valid until the next walk.
 */
export class QueueWalk {
  /** Columns by CPU. */
  cpus = 0;
  readonly queuePointers: KernelPointer[] = [];
  queuePositions = new Int32Array(64);
  curr = new Float64Array(64);
  idle = new Float64Array(64);
  nrRunning = new Float64Array(64);
  nrSwitches = new Float64Array(64);
  lockHeld = new Uint8Array(64);
  /** Number of tasks found in the queues of the CPU. */
  linked = new Int32Array(64);

  /** Columns by queued task. */
  count = 0;
  /** Index in the table of tasks. */
  task = new Int32Array(INITIAL);
  cpu = new Int32Array(INITIAL);
  class = new Uint8Array(INITIAL);
  /** Priority in O(1) and real-time queues; virtual run time or deadline in fair ones. */
  key = new Float64Array(INITIAL);
  /** Place in its list. */
  place = new Int32Array(INITIAL);
  /** EEVDF keeps a task that went to sleep queued for a while, though it is not runnable. */
  delayed = new Uint8Array(INITIAL);

  #arena: Arena;
  #tables: QueueTables;
  #slots: QueueSlots;
  #task: TaskSlots;
  #space!: AddressSpace;
  /** Offsets of the entity and the list node in a task; -1 if it has none. */
  readonly #entityOffset: number;
  readonly #runListOffset: number;
  /** Distance from a task's copy to that of its entity if the task's copy holds all of it, otherwise -1. */
  #entityInTask: number;

  /** The frontier: a first-in-first-out queue of nodes that were asked for. */
  #head = 0;
  #tail = 0;
  #kind = new Uint8Array(INITIAL);
  /** Index in `entities` for tree nodes, in `tasks` for list nodes. */
  #index = new Int32Array(INITIAL);
  /** The node that must point here: the previous one of a list, the parent in a tree. */
  #back = new Float64Array(INITIAL);
  /** Head of the list, or for tree nodes the pointer of the owning cfs_rq. */
  #owner = new Float64Array(INITIAL);
  /** Position of the list's head in the arena. */
  #headAt = new Int32Array(INITIAL);
  #cpuOf = new Int32Array(INITIAL);
  /** Priority for list nodes; index of the fair queue for tree nodes. */
  #level = new Int32Array(INITIAL);
  #placeOf = new Int32Array(INITIAL);

  /** Fair queues of this walk: index in the table, CPU, and counts of the CPU. */
  #fair = new Int32Array(INITIAL);
  #fairCpu = new Int32Array(INITIAL);
  #fairLinked = new Int32Array(INITIAL);
  #fairCount = 0;

  constructor(arena: Arena, tables: QueueTables, slots: QueueSlots, task: TaskSlots) {
    this.#arena = arena;
    this.#tables = tables;
    this.#slots = slots;
    this.#task = task;
    this.#entityOffset = task.se ?? -1;
    this.#runListOffset = task.run_list?.offset ?? -1;
    this.#entityInTask = -1;
    const entity = slots.fair?.entity.shape.segments;
    if (entity?.length === 1) {
      this.#entityInTask = task.shape.piece(this.#entityOffset + entity[0]!.offset, entity[0]!.length);
    }
  }

  /**
   * Walks the queues at `pointers`, one per CPU. The arena must have begun a snapshot.
   * @throws DomschedError `guest-inconsistent`, `walk-unbounded`
   */
  run(space: AddressSpace, pointers: readonly KernelPointer[]): void {
    this.#space = space;
    this.count = 0;
    this.#head = 0;
    this.#tail = 0;
    this.#fairCount = 0;
    this.cpus = pointers.length;
    if (this.cpus > this.curr.length) this.#growCpus(this.cpus);
    const { queues, fairQueues } = this.#tables;
    for (let cpu = 0; cpu < this.cpus; cpu++) {
      const pointer = pointers[cpu]!;
      this.queuePointers[cpu] = pointer;
      queues.want(pointer);
      if (this.#slots.fair !== undefined) fairQueues.want(movePointer(pointer, this.#slots.fair.rootOffset));
    }
    this.queuePointers.length = this.cpus;
    for (let cpu = 0; cpu < this.cpus; cpu++) this.#queue(cpu);
    while (this.#head < this.#tail) {
      const item = this.#head++;
      const kind = this.#kind[item];
      if (kind === O1_NODE) this.#o1Node(item);
      else if (kind === TREE_NODE || kind === TASK_NODE) this.#treeNode(item);
      else this.#realtimeNode(item);
    }
    // Reads the tasks found last, and fails for those that are not in memory.
    const { tasks } = this.#tables;
    for (let i = 0; i < this.count; i++) tasks.position(this.task[i]!, space);
    for (let cpu = 0; cpu < this.cpus; cpu++) tasks.position(tasks.find(this.curr[cpu]!), space);
    for (let i = 0; i < this.#fairCount; i++) this.#checkFair(i);
    for (let cpu = 0; cpu < this.cpus; cpu++) this.#checkCount(cpu);
  }

  /**
   * Reads again the words that change with every edit of a queue.
   * @returns whether they are as the walk saw them
   */
  unchanged(space: AddressSpace): boolean {
    const { keys, keyArena } = this.#tables;
    const { key } = this.#slots;
    keyArena.begin(space);
    for (let cpu = 0; cpu < this.cpus; cpu++) keys.want(this.queuePointers[cpu]!);
    for (let cpu = 0; cpu < this.cpus; cpu++) {
      const at = keys.position(keys.find(this.queuePointers[cpu]!), space);
      if (keyArena.number(at, key.nr_running) !== this.nrRunning[cpu]) return false;
      if (keyArena.pointer(at, key.curr) !== this.curr[cpu]) return false;
      if (key.nr_switches && keyArena.number(at, key.nr_switches) !== this.nrSwitches[cpu]) return false;
    }
    return true;
  }

  /** Only the tasks on a CPU, from the queues at `pointers`. @throws DomschedError `guest-inconsistent` */
  currentTasks(space: AddressSpace, pointers: readonly KernelPointer[]): readonly number[] {
    const { keys, keyArena } = this.#tables;
    keyArena.begin(space);
    for (const pointer of pointers) keys.want(pointer);
    return pointers.map((pointer) =>
      keyArena.pointer(keys.position(keys.find(pointer), space), this.#slots.key.curr),
    );
  }

  #queue(cpu: number): void {
    const plan = this.#slots;
    const arena = this.#arena;
    const at = this.#tables.queues.position(this.#tables.queues.find(this.queuePointers[cpu]!), this.#space);
    this.queuePositions[cpu] = at;
    this.linked[cpu] = 0;
    // It is an unsigned long in O(1) kernels, an unsigned int since 2.6.39.
    this.nrRunning[cpu] = arena.number(at, plan.nr_running);
    this.nrSwitches[cpu] = plan.nr_switches === undefined ? 0 : arena.number(at, plan.nr_switches);
    const { lockWord } = plan;
    this.lockHeld[cpu] = lockWord && lockHeld(plan.lock, arena.number(at, lockWord)) ? 1 : 0;
    const curr = arena.pointer(at, plan.curr);
    const idle = arena.pointer(at, plan.idle);
    if (curr === NO_POINTER || idle === NO_POINTER) throw this.#wrong(cpu, 'curr or idle is no pointer');
    this.curr[cpu] = curr;
    this.idle[cpu] = idle;
    const { tasks } = this.#tables;
    tasks.want(curr);
    tasks.want(idle);
    if (plan.o1 !== undefined) this.#o1Arrays(cpu, at, plan.o1);
    if (plan.realtime?.groups === false) this.#realtimeLists(cpu, at, plan.realtime);
    if (plan.fair !== undefined) {
      const root = movePointer(this.queuePointers[cpu]!, plan.fair.rootOffset);
      this.#fairQueue(root, cpu, plan.fair);
    }
    if (plan.stop !== undefined) this.#stopTask(cpu, at, plan.stop);
  }

  #o1Arrays(cpu: number, at: number, o1: O1Slots): void {
    const arena = this.#arena;
    const { links } = this.#slots;
    const rq = this.queuePointers[cpu]!;
    const first = movePointer(rq, o1.arrays);
    const second = movePointer(first, o1.arraySize);
    const active = arena.pointer(at, o1.active);
    const expired = arena.pointer(at, o1.expired);
    const sane = (active === first && expired === second) || (active === second && expired === first);
    if (!sane) throw this.#wrong(cpu, 'active and expired are not its two arrays');
    for (let array = 0; array < 2; array++) {
      const { bitmap, queue } = o1.copies[array]!;
      const pointer = array === 0 ? first : second;
      for (let prio = 0; prio < o1.priorities; prio++) {
        const headAt = at + queue.at + links.size * prio;
        const head = movePointer(pointer, o1.queueOffset + links.size * prio);
        const next = arena.pointerAt(headAt + links.next);
        if ((next !== head) !== arena.bit(at + bitmap.at, prio))
          throw this.#wrong(cpu, `bitmap and queue of priority ${prio} disagree`);
        if (next === head) {
          if (arena.pointerAt(headAt + links.prev) !== head)
            throw this.#wrong(cpu, `the empty queue of priority ${prio} has a last task`);
          continue;
        }
        const class_ = pointer === active ? QUEUE_CLASS.active : QUEUE_CLASS.expired;
        this.#pushList(O1_NODE, cpu, next, head, head, headAt, prio * 2 + class_, 0);
      }
    }
  }

  #realtimeLists(cpu: number, at: number, realtime: RealtimeSlots): void {
    const arena = this.#arena;
    const { links } = this.#slots;
    const base = movePointer(this.queuePointers[cpu]!, realtime.queue.offset);
    for (let prio = 0; prio < realtime.priorities; prio++) {
      const headAt = at + realtime.queue.at + links.size * prio;
      const head = movePointer(base, links.size * prio);
      const next = arena.pointerAt(headAt + links.next);
      if (next === head) continue;
      this.#pushList(REALTIME_NODE, cpu, next, head, head, headAt, prio, 0);
    }
  }

  #pushList(
    kind: number,
    cpu: number,
    node: KernelPointer,
    back: number,
    head: number,
    headAt: number,
    level: number,
    place: number,
  ): void {
    if (node === NO_POINTER) throw this.#wrong(cpu, 'a list of ready tasks has a link that is no pointer');
    const task = movePointer(node, -this.#runListOffset);
    const item = this.#reserve();
    this.#kind[item] = kind;
    this.#index[item] = this.#tables.tasks.want(task);
    this.#back[item] = back;
    this.#owner[item] = head;
    this.#headAt[item] = headAt;
    this.#cpuOf[item] = cpu;
    this.#level[item] = level;
    this.#placeOf[item] = place;
  }

  #o1Node(item: number): void {
    const cpu = this.#cpuOf[item]!;
    const level = this.#level[item]!;
    const at = this.#listNode(item);
    const prio = level >> 1;
    if (this.#arena.number(at, this.#task.prio) !== prio) {
      throw this.#wrong(cpu, `a task in the queue of priority ${prio} has another priority`);
    }
    const { array } = this.#task;
    const { o1, links } = this.#slots;
    const home = this.#owner[item]! - o1!.queueOffset - links.size * prio;
    if (array === undefined || this.#arena.pointer(at, array) !== home) {
      throw this.#wrong(cpu, 'a queued task does not point to its array');
    }
    this.#found(this.#index[item]!, cpu, level & 1, prio, this.#placeOf[item]!, 0);
  }

  #realtimeNode(item: number): void {
    const at = this.#listNode(item);
    const { on_rq } = this.#task;
    if (on_rq !== undefined && this.#arena.number(at, on_rq) === 0) {
      throw this.#wrong(this.#cpuOf[item]!, 'a task in a real-time queue is not marked as queued');
    }
    const { index, cpu } = { index: this.#index[item]!, cpu: this.#cpuOf[item]! };
    this.#found(index, cpu, QUEUE_CLASS.realtime, this.#level[item]!, this.#placeOf[item]!, 0);
  }

  /** Checks a list's node both ways and continues with the next. @returns position of the task's copy */
  #listNode(item: number): number {
    const cpu = this.#cpuOf[item]!;
    const arena = this.#arena;
    const task = this.#index[item]!;
    const at = this.#tables.tasks.position(task, this.#space);
    const runList = this.#task.run_list!;
    if (arena.pointer(at, runList.prev) !== this.#back[item]) {
      throw this.#wrong(cpu, 'a list of ready tasks does not link back');
    }
    const node = movePointer(this.#tables.tasks.pointers[task] as KernelPointer, this.#runListOffset);
    const next = arena.pointer(at, runList.next);
    const head = this.#owner[item]!;
    const headAt = this.#headAt[item]!;
    if (next === head) {
      if (arena.pointerAt(headAt + this.#slots.links.prev) !== node)
        throw this.#wrong(cpu, 'a list of ready tasks ends elsewhere than its head says');
    } else {
      const place = this.#placeOf[item]! + 1;
      if (place > this.#tables.tasks.limit) throw this.#wrong(cpu, 'a list of ready tasks does not end');
      this.#pushList(this.#kind[item]!, cpu, next, node, head, headAt, this.#level[item]!, place);
    }
    return at;
  }

  #fairQueue(pointer: KernelPointer, cpu: number, fair: FairSlots): void {
    if (this.#fairCount === this.#fair.length) this.#growFair();
    if (this.#fairCount >= MAX_GROUPS + this.cpus) throw this.#wrong(cpu, 'its task groups do not end');
    const { fairQueues } = this.#tables;
    const index = fairQueues.want(pointer);
    const slot = this.#fairCount++;
    this.#fair[slot] = index;
    this.#fairCpu[slot] = cpu;
    this.#fairLinked[slot] = 0;
    const at = fairQueues.position(index, this.#space);
    const arena = this.#arena;
    if (fair.rq !== undefined && arena.pointer(at, fair.rq) !== this.queuePointers[cpu]) {
      throw this.#wrong(cpu, 'a fair queue belongs to another CPU');
    }
    const root = arena.pointer(at, fair.root);
    if (root !== NO_POINTER) this.#pushEntity(movePointer(root, -fair.entity.run_node), 0, slot, cpu);
    // The running entity is not in the tree but still counts.
    const curr = arena.pointer(at, fair.curr);
    if (curr !== NO_POINTER) this.#pushEntity(curr, NaN, slot, cpu);
  }

  /** @param parent node above the entity, 0 for the root, NaN for the running entity */
  #pushEntity(entity: KernelPointer, parent: number, slot: number, cpu: number): void {
    const item = this.#reserve();
    const task = this.#entityInTask < 0 ? -1 : this.#tables.tasks.find(entity - this.#entityOffset);
    this.#kind[item] = task < 0 ? TREE_NODE : TASK_NODE;
    this.#index[item] = task < 0 ? this.#tables.entities.want(entity) : task;
    this.#back[item] = parent;
    this.#cpuOf[item] = cpu;
    this.#level[item] = slot;
  }

  #treeNode(item: number): void {
    const fair = this.#slots.fair!;
    const { entity } = fair;
    const arena = this.#arena;
    const cpu = this.#cpuOf[item]!;
    const slot = this.#level[item]!;
    const pointer = this.#entityPointer(item);
    const at = this.#entityPosition(item, pointer);
    const parent = this.#back[item]!;
    const running = Number.isNaN(parent);
    const onRq = arena.number(at, entity.on_rq) !== 0;
    if (running) {
      // `curr` may be about to leave the queue; then it is no longer counted.
      if (!onRq) return;
    } else {
      if (!onRq) throw this.#wrong(cpu, 'an entity in a fair queue is not marked as queued');
      // The two lowest bits of the word are the node's colour (Linux include/linux/rbtree.h).
      const up = arena.taggedPointer(at, entity.__rb_parent_color);
      if (up !== parent) throw this.#wrong(cpu, 'a node of a fair queue does not link back to its parent');
      const node = movePointer(pointer, entity.run_node);
      const left = arena.pointer(at, entity.rb_left);
      const right = arena.pointer(at, entity.rb_right);
      if (left !== NO_POINTER && left === right)
        throw this.#wrong(cpu, 'a node of a fair queue has one child twice');
      if (left !== NO_POINTER) this.#pushEntity(movePointer(left, -entity.run_node), node, slot, cpu);
      if (right !== NO_POINTER) this.#pushEntity(movePointer(right, -entity.run_node), node, slot, cpu);
    }
    if (entity.cfs_rq !== undefined && !fair.single) {
      const owner = this.#tables.fairQueues.pointers[this.#fair[slot]!];
      if (arena.pointer(at, entity.cfs_rq) !== owner)
        throw this.#wrong(cpu, 'a queued entity belongs to another queue');
    }
    this.#fairLinked[slot]! += 1;
    const group = entity.my_q === undefined ? NO_POINTER : arena.pointer(at, entity.my_q);
    if (group !== NO_POINTER) {
      if (fair.single) throw this.#wrong(cpu, 'a group is in the queue of all tasks');
      this.#fairQueue(group, cpu, fair);
      return;
    }
    const task = this.#tables.tasks.want(movePointer(pointer, -this.#entityOffset));
    const key = arena.wrapping(at, entity.key);
    const delayed = entity.sched_delayed !== undefined && arena.number(at, entity.sched_delayed) !== 0;
    this.#found(task, cpu, QUEUE_CLASS.fair, key, 0, delayed ? 1 : 0);
  }

  #entityPointer(item: number): KernelPointer {
    const { tasks, entities } = this.#tables;
    const index = this.#index[item]!;
    if (this.#kind[item] === TREE_NODE) return entities.pointers[index] as KernelPointer;
    return movePointer(tasks.pointers[index] as KernelPointer, this.#entityOffset);
  }

  /** Position of an entity's copy, in its task's copy or by itself. */
  #entityPosition(item: number, pointer: KernelPointer): number {
    const { tasks, entities } = this.#tables;
    if (this.#kind[item] === TASK_NODE) {
      const at = tasks.tryPosition(this.#index[item]!, this.#space);
      // A former task may be a group's entity by now, which is not inside a task.
      if (at >= 0) {
        const own = at + this.#entityInTask;
        const { my_q } = this.#slots.fair!.entity;
        if (my_q === undefined || this.#arena.pointer(own, my_q) === NO_POINTER) return own;
      }
      this.#kind[item] = TREE_NODE;
      this.#index[item] = entities.want(pointer);
    }
    return entities.position(this.#index[item]!, this.#space);
  }

  #stopTask(cpu: number, at: number, slot: PointerSlot): void {
    const stop = this.#arena.pointer(at, slot);
    if (stop === NO_POINTER) return;
    const { tasks } = this.#tables;
    const index = tasks.want(stop);
    const position = tasks.position(index, this.#space);
    const { on_rq } = this.#task;
    if (on_rq === undefined || this.#arena.number(position, on_rq) === 0) return;
    this.#found(index, cpu, QUEUE_CLASS.stop, 0, 0, 0);
  }

  #found(task: number, cpu: number, class_: number, key: number, place: number, delayed: number): void {
    const index = this.count;
    if (index === this.task.length) this.#growTasks();
    // A tree or list cannot loop, because every link was checked both ways, but two queues may share a task.
    if (index > this.#tables.tasks.limit) throw this.#wrong(cpu, 'its queues do not end');
    this.task[index] = task;
    this.cpu[index] = cpu;
    this.class[index] = class_;
    this.key[index] = key;
    this.place[index] = place;
    this.delayed[index] = delayed;
    this.count = index + 1;
    this.linked[cpu]! += 1;
  }

  #checkFair(slot: number): void {
    const fair = this.#slots.fair!;
    const at = this.#tables.fairQueues.position(this.#fair[slot]!, this.#space);
    const counted = this.#arena.number(at, fair.linked);
    if (counted !== this.#fairLinked[slot]) {
      throw this.#wrong(
        this.#fairCpu[slot]!,
        `a fair queue counts ${counted} entities and links ${this.#fairLinked[slot]}`,
      );
    }
  }

  #checkCount(cpu: number): void {
    const counted = this.nrRunning[cpu]!;
    const at = this.queuePositions[cpu]!;
    const { realtime, o1 } = this.#slots;
    let found = this.linked[cpu]!;
    for (const count of this.#slots.counted) found += this.#arena.number(at, count);
    if (realtime?.groups) found += this.#arena.number(at, realtime.nr_running);
    if (counted !== found) throw this.#wrong(cpu, `it counts ${counted} tasks and links ${found}`);
    if (o1 === undefined) return;
    let active = 0;
    for (const { nr_active } of o1.copies) active += this.#arena.number(at, nr_active);
    if (active !== counted) throw this.#wrong(cpu, `its arrays count ${active} tasks, it counts ${counted}`);
  }

  #wrong(cpu: number, what: string): DomschedError {
    const address = pointerAddress(this.queuePointers[cpu]!);
    return new DomschedError('guest-inconsistent', `run queue of CPU ${cpu}: ${what}`, {
      cpu,
      address,
      fact: what,
    });
  }

  #reserve(): number {
    const item = this.#tail;
    if (item === this.#kind.length) this.#growFrontier();
    this.#tail = item + 1;
    return item;
  }

  #growFrontier(): void {
    const limit = 4 * (this.#tables.tasks.limit + MAX_GROUPS);
    if (this.#kind.length >= limit)
      throw this.#wrong(0, 'the queues link more nodes than there can be tasks');
    this.#kind = grown(this.#kind, Uint8Array);
    this.#index = grown(this.#index, Int32Array);
    this.#back = grown(this.#back, Float64Array);
    this.#owner = grown(this.#owner, Float64Array);
    this.#headAt = grown(this.#headAt, Int32Array);
    this.#cpuOf = grown(this.#cpuOf, Int32Array);
    this.#level = grown(this.#level, Int32Array);
    this.#placeOf = grown(this.#placeOf, Int32Array);
  }

  #growFair(): void {
    this.#fair = grown(this.#fair, Int32Array);
    this.#fairCpu = grown(this.#fairCpu, Int32Array);
    this.#fairLinked = grown(this.#fairLinked, Int32Array);
  }

  #growTasks(): void {
    this.task = grown(this.task, Int32Array);
    this.cpu = grown(this.cpu, Int32Array);
    this.class = grown(this.class, Uint8Array);
    this.key = grown(this.key, Float64Array);
    this.place = grown(this.place, Int32Array);
    this.delayed = grown(this.delayed, Uint8Array);
  }

  #growCpus(cpus: number): void {
    const size = 2 ** Math.ceil(Math.log2(cpus));
    this.queuePositions = new Int32Array(size);
    this.curr = new Float64Array(size);
    this.idle = new Float64Array(size);
    this.nrRunning = new Float64Array(size);
    this.nrSwitches = new Float64Array(size);
    this.lockHeld = new Uint8Array(size);
    this.linked = new Int32Array(size);
  }
}

type NumberColumn = Uint8Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;

function grown<T extends NumberColumn>(column: T, type: new (length: number) => T): T {
  const larger = new type(column.length * 2);
  larger.set(column);
  return larger;
}
