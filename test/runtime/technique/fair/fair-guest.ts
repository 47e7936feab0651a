import type { Word } from '../../../../runtime/edit/member.ts';
import type { LayoutView } from '../../../../runtime/layout/view.ts';
import { type GuestVirtual, guestVirtual } from '../../../../runtime/memory/address.ts';
import { type FairGuest, type FairMembers, fairMembers } from '../../../../runtime/technique/fair/members.ts';
import { ModelMemory } from '../../edit/model-memory.ts';
import { spliceBits, stateBits } from '../bits.ts';

/** kernel/sched/core.c, sched_prio_to_weight[], some of them; weights in memory have 10 more bits. */
export const WEIGHTS = [88761, 3121, 1024, 335, 15] as const;
/** include/uapi/linux/sched.h */
export const SCHED_NORMAL = 0;
export const SCHED_IDLE = 5;

/** arch/x86/include/asm/preempt.h, PREEMPT_NEED_RESCHED, which is clear where there is a request. */
export const NO_REQUEST = 0x8000_0000n;

/** A group of tasks, with a queue and an entity per CPU. The root has no entity. */
export interface ModelGroup {
  readonly parent: ModelGroup | null;
  readonly queues: readonly GuestVirtual[];
  readonly entities: readonly GuestVirtual[];
  readonly weight: number;
  readonly idle: boolean;
}

export interface FairModelTask {
  readonly address: GuestVirtual;
  readonly entity: GuestVirtual;
  readonly cpu: number;
  readonly group: ModelGroup;
  readonly weight: number;
  readonly policy: number;
  readonly slice: number;
  /** In its queue, on its CPU if it is the one that runs there. */
  queued: boolean;
  readonly running: boolean;
}

export interface TaskSpec {
  cpu: number;
  group: number;
  weight: number;
  policy: number;
  /** ns of virtual time, relative to {@link EPOCH}. */
  vruntime: number;
  slice: number;
  queued: boolean;
}

/** Virtual times of the model start shortly before they wrap around. */
export const EPOCH = 2n ** 64n - 1_000_000n;
/** PELT time of all queues, ns. */
export const NOW = 5_000_000_000n;

/** A guest with the real layout of a kernel with fair queues, and a plain model of what is in them. */
export class FairModel extends ModelMemory {
  readonly guest: FairGuest;
  readonly groups: ModelGroup[] = [];
  readonly tasks: FairModelTask[] = [];
  readonly idleTasks: GuestVirtual[] = [];
  readonly #view: LayoutView;

  /** @param parents per group below the root, which group it is in; 0 is the root. None where the kernel has no groups */
  constructor(view: LayoutView, cpus: number, parents: readonly { parent: number; idle: boolean }[] = []) {
    super();
    this.#view = view;
    const layout = fairMembers(view);
    const queues = Array.from({ length: cpus }, (_, cpu) => ({
      cpu,
      address: this.take(view.requireStruct('rq').size),
      preemptCount: this.take(4),
    }));
    this.guest = {
      members: layout,
      bits: spliceBits,
      stateBits,
      queues,
      fairSchedClass: this.take(64),
      activeMask: this.take(8),
      uclampUsed: layout.static_key === undefined ? undefined : this.take(16),
      tickNsec: 4_000_000n,
      wayOut: {
        saved: 48,
        switching: new Map(),
        scheduling: new Map(),
        leaving: new Map(),
        last: new Map(),
      },
    };
    this.put(this.guest.activeMask, { offset: 0, size: 8 }, (1n << BigInt(cpus)) - 1n);
    const roots = queues.map(({ address }) => guestVirtual(address + BigInt(layout.rq.cfs)));
    this.groups.push({ parent: null, queues: roots, entities: [], weight: 1024, idle: false });
    for (const { parent, idle } of parents) {
      this.groups.push({
        parent: this.groups[parent % this.groups.length]!,
        queues: queues.map(() => this.take(view.requireStruct('cfs_rq').size)),
        entities: queues.map(() => this.take(view.requireStruct('sched_entity').size)),
        weight: 1024,
        idle,
      });
    }
  }

  get layout(): FairMembers {
    return this.guest.members;
  }

  addTask(spec: TaskSpec, running = false): FairModelTask {
    const { task_struct, sched_entity, eevdf } = this.layout;
    const address = this.take(this.#view.requireStruct('task_struct').size);
    const entity = guestVirtual(address + BigInt(task_struct.se));
    const group = this.groups[spec.group % this.groups.length]!;
    const mask = this.take(8);
    const { cpu, weight, policy, slice } = spec;
    const task = {
      address,
      entity,
      cpu,
      group,
      weight,
      policy,
      slice,
      queued: spec.queued || running,
      running,
    };
    this.put(address, task_struct.sched_class, this.guest.fairSchedClass);
    this.put(address, task_struct.cpu, BigInt(cpu));
    this.put(address, task_struct.policy, BigInt(policy));
    this.put(address, task_struct.cpus_ptr, mask);
    this.put(mask, { offset: 0, size: 8 }, 0xffn);
    if (task_struct.numa_preferred_nid !== undefined)
      this.put(address, task_struct.numa_preferred_nid, 0xffff_ffffn);
    this.put(entity, sched_entity.weight, BigInt(weight) << 10n);
    this.put(entity, sched_entity.vruntime, EPOCH + BigInt(spec.vruntime));
    if (eevdf !== undefined) {
      this.put(entity, eevdf.sched_entity.slice, BigInt(slice));
      const vslice = (BigInt(slice) << 10n) / BigInt(weight);
      this.put(entity, eevdf.sched_entity.deadline, EPOCH + BigInt(spec.vruntime) + vslice);
    }
    this.#average(entity);
    this.tasks.push(task);
    return task;
  }

  /** Writes what the model says: every queue, tree, list and count. */
  write(): void {
    for (const { cpu } of this.guest.queues) this.#writeCpu(cpu);
  }

  /** Tasks of a CPU that are queued in a group or below it. */
  below(group: ModelGroup, cpu: number): FairModelTask[] {
    const inside = (candidate: ModelGroup | null): boolean =>
      candidate !== null && (candidate === group || inside(candidate.parent));
    return this.tasks.filter((task) => task.cpu === cpu && task.queued && inside(task.group));
  }

  /** What stands in one queue: tasks of the group, and groups in it that have something below. */
  entitiesOf(
    group: ModelGroup,
    cpu: number,
  ): { entity: GuestVirtual; weight: number; idle: boolean; running: boolean }[] {
    const tasks = this.tasks
      .filter((task) => task.queued && task.group === group && task.cpu === cpu)
      .map(({ entity, weight, policy, running }) => ({
        entity,
        weight,
        idle: policy === SCHED_IDLE,
        running,
      }));
    const children = this.groups
      .filter((child) => child.parent === group && this.below(child, cpu).length > 0)
      .map((child) => ({
        entity: child.entities[cpu]!,
        weight: child.weight,
        idle: child.idle,
        running: this.below(child, cpu).some(({ running }) => running),
      }));
    return [...tasks, ...children];
  }

  /**
   * What has to be in a queue's tree: what stands in the queue and does not run. With one tree per CPU it has the tasks
   * of all groups, which weigh there what {@link treeWeight} says.
   */
  treeOf(group: ModelGroup, cpu: number): { entity: GuestVirtual; weight: bigint }[] {
    const { single } = this.layout;
    if (single === null)
      return this.entitiesOf(group, cpu)
        .filter(({ running }) => !running)
        .map(({ entity, weight }) => ({ entity, weight: BigInt(weight) }));
    if (group.parent !== null) return [];
    return this.below(group, cpu)
      .filter(({ running }) => !running)
      .map(({ entity }) => ({ entity, weight: this.load(entity, single.sched_entity.h_weight) }));
  }

  /** A queued task's share of its CPU, on the scale of weights in memory: its share of each queue around it. */
  treeWeight(task: FairModelTask): bigint {
    let weight = 1n << 20n;
    let own = BigInt(task.weight) << 10n;
    for (let group = task.group; ; group = group.parent!) {
      const all = this.entitiesOf(group, task.cpu).reduce((sum, one) => sum + one.weight, 0);
      const share = (weight * own) / (group.parent === null ? 1n << 20n : BigInt(all) << 10n);
      weight = share < 2n ? 2n : share;
      if (group.parent === null) return weight;
      own = BigInt(group.weight) << 10n;
    }
  }

  /** SCHED_IDLE tasks in a queue, and all tasks of groups below it that are idle as a whole. */
  idleBelow(group: ModelGroup, cpu: number): number {
    const isIdleIn = (task: FairModelTask) => {
      if (task.policy === SCHED_IDLE) return true;
      for (let at = task.group; at !== group; at = at.parent!) if (at.idle) return true;
      return false;
    };
    return this.below(group, cpu).filter(isIdleIn).length;
  }

  #writeCpu(cpu: number): void {
    this.put(this.guest.queues[cpu]!.preemptCount, { offset: 0, size: 4 }, NO_REQUEST);
    const { rq, groups, sched_entity, task_struct } = this.layout;
    const { address } = this.guest.queues[cpu]!;
    const idle = this.take(this.#view.requireStruct('task_struct').size);
    this.idleTasks[cpu] = idle;
    const curr = this.tasks.find((task) => task.cpu === cpu && task.running);
    this.put(address, rq.idle, idle);
    this.put(address, rq.curr, curr?.address ?? idle);
    this.put(address, rq.nr_running, BigInt(this.below(this.groups[0]!, cpu).length));
    const queued = this.below(this.groups[0]!, cpu);
    const tasks = address + BigInt(rq.cfs_tasks);
    this.#writeList(
      tasks,
      queued.map(({ entity }) => entity + BigInt(sched_entity.group_node)),
    );
    for (const task of this.tasks.filter((candidate) => candidate.cpu === cpu)) {
      this.put(task.address, task_struct.on_rq, task.queued ? 1n : 0n);
      this.put(task.address, task_struct.on_cpu, task.running ? 1n : 0n);
      this.put(task.entity, sched_entity.on_rq, task.queued ? 1n : 0n);
      this.#link(task.entity, task.group, cpu);
    }
    // Children before parents; queues without anything in them are not listed.
    const listed = this.groups.filter((group) => group.parent === null || this.below(group, cpu).length > 0);
    if (groups !== null) {
      const leaf = address + BigInt(groups.rq.leaf_cfs_rq_list);
      this.put(address, groups.rq.tmp_alone_branch, leaf);
      this.#writeList(
        leaf,
        listed.toReversed().map((group) => group.queues[cpu]! + BigInt(groups.cfs_rq.leaf_cfs_rq_list)),
      );
    }
    const { single } = this.layout;
    if (single !== null)
      for (const task of this.tasks.filter((candidate) => candidate.cpu === cpu))
        this.put(
          task.entity,
          single.sched_entity.h_weight,
          task.queued ? this.treeWeight(task) : BigInt(task.weight) << 9n,
        );
    for (const group of this.groups) {
      const queue = group.queues[cpu]!;
      this.#writeQueue(group, cpu);
      if (groups === null) continue;
      this.put(queue, groups.cfs_rq.rq, address);
      this.put(queue, groups.cfs_rq.on_list, listed.includes(group) ? 1n : 0n);
      const entity = group.entities[cpu];
      if (entity === undefined) continue;
      this.put(entity, groups.sched_entity.my_q, queue);
      this.put(entity, sched_entity.weight, BigInt(group.weight) << 10n);
      this.put(entity, sched_entity.on_rq, this.below(group, cpu).length > 0 ? 1n : 0n);
      this.put(entity, groups.sched_entity.runnable_weight, BigInt(this.below(group, cpu).length));
      this.#link(entity, group.parent!, cpu);
      this.#average(entity);
    }
  }

  #link(entity: GuestVirtual, group: ModelGroup, cpu: number): void {
    const { groups } = this.layout;
    if (groups === null) return;
    this.put(entity, groups.sched_entity.cfs_rq, group.queues[cpu]!);
    this.put(entity, groups.sched_entity.parent, group.entities[cpu] ?? 0n);
  }

  #writeQueue(group: ModelGroup, cpu: number): void {
    const { cfs_rq, sched_entity, cfs, eevdf } = this.layout;
    const queue = group.queues[cpu]!;
    const entities = this.entitiesOf(group, cpu);
    const put = (field: Word | undefined, value: number | bigint) => {
      if (field !== undefined) this.put(queue, field, BigInt(value));
    };
    put(cfs_rq.avg.last_update_time, NOW);
    put(cfs_rq.nr_queued, entities.length);
    put(cfs_rq.h_nr_queued, this.below(group, cpu).length);
    put(cfs_rq.h_nr_runnable, this.below(group, cpu).length);
    put(cfs_rq.idle, group.idle ? 1 : 0);
    put(cfs_rq.idle_nr, entities.filter(({ idle }) => idle).length);
    put(cfs_rq.h_nr_idle, this.idleBelow(group, cpu));
    put(
      cfs_rq.weight,
      entities.reduce((sum, { weight }) => sum + (weight << 10), 0),
    );
    put(cfs_rq.inv_weight, 77);
    const running = entities.find((entity) => entity.running);
    const { single } = this.layout;
    const runs = this.tasks.find((task) => task.cpu === cpu && task.running);
    if (single !== null) put(single.cfs_rq.h_curr, running?.entity ?? 0n);
    put(
      cfs_rq.curr,
      (single === null ? running?.entity : group.parent === null ? runs?.entity : undefined) ?? 0n,
    );
    for (const { entity } of entities) {
      if (this.tasks.some((task) => task.entity === entity)) continue;
      this.put(entity, sched_entity.vruntime, EPOCH);
      if (eevdf !== undefined) {
        this.put(entity, eevdf.sched_entity.slice, 3_000_000n);
        this.put(entity, eevdf.sched_entity.deadline, EPOCH + 3_000_000n);
      }
    }
    const key = (entity: GuestVirtual) =>
      BigInt.asIntN(64, this.load(entity, eevdf?.sched_entity.deadline ?? sched_entity.vruntime) - EPOCH);
    const tree = this.treeOf(group, cpu).sort((a, b) => (key(a.entity) < key(b.entity) ? -1 : 1));
    if (cfs !== undefined) put(cfs.min_vruntime, EPOCH);
    if (eevdf !== undefined) {
      put(eevdf.cfs_rq.zero, EPOCH);
      const sum = tree.reduce((total, { entity, weight }) => {
        const vruntime = BigInt.asIntN(64, this.load(entity, sched_entity.vruntime) - EPOCH);
        return total + vruntime * weight;
      }, 0n);
      put(eevdf.cfs_rq.avg_vruntime, sum);
      put(
        eevdf.cfs_rq.avg_load,
        tree.reduce((total, { weight }) => total + weight, 0n),
      );
    }
    this.#writeTree(
      queue,
      tree.map(({ entity }) => entity),
    );
  }

  /** A tree as flat as can be: all levels black, the last one red unless it is full. */
  #writeTree(queue: GuestVirtual, sorted: readonly GuestVirtual[]): void {
    const { cfs_rq, rb_node, sched_entity, eevdf } = this.layout;
    const full = Math.floor(Math.log2(sorted.length + 1));
    const nodeOf = (entity: bigint) => entity + BigInt(sched_entity.run_node);
    const write = (from: number, to: number, parent: bigint, depth: number): bigint => {
      if (from === to) return 0n;
      const middle = (from + to) >> 1;
      const entity = sorted[middle]!;
      const node = nodeOf(entity);
      this.put(node, rb_node.__rb_parent_color, parent | (depth < full ? 1n : 0n));
      const left = write(from, middle, node, depth + 1);
      const right = write(middle + 1, to, node, depth + 1);
      this.put(node, rb_node.rb_left, left);
      this.put(node, rb_node.rb_right, right);
      if (eevdf !== undefined) {
        const subtree = sorted.slice(from, to);
        const { min_vruntime, min_slice, max_slice, slice } = eevdf.sched_entity;
        const times = subtree.map((other) =>
          BigInt.asIntN(64, this.load(other, sched_entity.vruntime) - EPOCH),
        );
        this.put(entity, min_vruntime, EPOCH + times.reduce((a, b) => (a < b ? a : b)));
        const slices = subtree.map((other) => this.load(other, slice));
        if (min_slice !== undefined)
          this.put(
            entity,
            min_slice,
            slices.reduce((a, b) => (a < b ? a : b)),
          );
        if (max_slice !== undefined)
          this.put(
            entity,
            max_slice,
            slices.reduce((a, b) => (a > b ? a : b)),
          );
      }
      return node;
    };
    this.put(queue, cfs_rq.root, write(0, sorted.length, 0n, 0));
    this.put(queue, cfs_rq.leftmost, sorted[0] === undefined ? 0n : nodeOf(sorted[0]));
  }

  #writeList(head: bigint, nodes: readonly bigint[]): void {
    const { next, prev } = this.layout.list_head;
    const ring = [head, ...nodes];
    for (const [index, node] of ring.entries()) {
      this.put(node, next, ring[(index + 1) % ring.length]!);
      this.put(node, prev, ring[(index + ring.length - 1) % ring.length]!);
    }
  }

  #average(entity: GuestVirtual): void {
    const { avg } = this.layout.sched_entity;
    this.put(entity, avg.last_update_time, NOW - 40_000_000n);
    this.put(entity, avg.load_sum, 20_000n);
    this.put(entity, avg.runnable_sum, 20_000n << 10n);
    this.put(entity, avg.util_sum, 10_000n << 10n);
    this.put(entity, avg.period_contrib, 500n);
    this.put(entity, avg.load_avg, 400n);
    this.put(entity, avg.runnable_avg, 430n);
    this.put(entity, avg.util_avg, 215n);
  }
}
