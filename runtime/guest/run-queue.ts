import type { GuestVirtual } from '../memory/address.ts';
import type { Arena } from './arena.ts';
import type { GuestCpu } from './percpu.ts';
import { type KernelPointer, pointerAddress } from './pointer.ts';
import { QUEUE_CLASS, QUEUE_CLASS_NAMES, type QueueTables, type QueueWalk } from './queue-walk.ts';
import type { TaskSlots } from './task-slots.ts';

export type QueueClass = (typeof QUEUE_CLASS_NAMES)[number];

export interface QueuedTask {
  readonly address: GuestVirtual;
  readonly pid: number;
  /** The part of the scheduler that it waits in; `active` and `expired` are O(1)'s arrays. */
  readonly class: QueueClass;
  /** Priority (O(1), real-time), virtual run time (CFS) or virtual deadline (EEVDF). */
  readonly key: number;
  readonly running: boolean;
  /** It went to sleep, but stays queued until its lag is gone (EEVDF). */
  readonly delayed: boolean;
}

export interface RunQueue {
  readonly cpu: number;
  /** Address of its `struct rq`. */
  readonly address: GuestVirtual;
  /** The task on the CPU; the idle task when nothing runs. */
  readonly curr: GuestVirtual;
  readonly idle: GuestVirtual;
  /** The queue's own count of ready and running tasks. */
  readonly nrRunning: number;
  readonly lockHeld: boolean;
  /** In the order in which the scheduler would pick them, as far as that is known. */
  readonly tasks: readonly QueuedTask[];
}

/** Turns the columns of a walk into objects. */
export function describeQueues(
  walk: QueueWalk,
  tables: QueueTables,
  arena: Arena,
  slots: TaskSlots,
  cpus: readonly GuestCpu[],
): RunQueue[] {
  const tasks: QueuedTask[][] = cpus.map(() => []);
  for (const i of order(walk)) {
    const pointer = tables.tasks.pointers[walk.task[i]!] as KernelPointer;
    const at = tables.tasks.copy(walk.task[i]!);
    tasks[walk.cpu[i]!]!.push({
      address: pointerAddress(pointer),
      pid: arena.number(at, slots.pid),
      class: QUEUE_CLASS_NAMES[walk.class[i]!]!,
      key: walk.key[i]!,
      running: walk.curr[walk.cpu[i]!] === pointer,
      delayed: walk.delayed[i] === 1,
    });
  }
  return cpus.map(({ cpu }, i) => ({
    cpu,
    address: pointerAddress(walk.queuePointers[i]!),
    curr: pointerAddress(walk.curr[i] as KernelPointer),
    idle: pointerAddress(walk.idle[i] as KernelPointer),
    nrRunning: walk.nrRunning[i]!,
    lockHeld: walk.lockHeld[i] === 1,
    tasks: tasks[i]!,
  }));
}

const RANK: Readonly<Record<number, number>> = {
  [QUEUE_CLASS.stop]: 0,
  [QUEUE_CLASS.realtime]: 1,
  [QUEUE_CLASS.active]: 2,
  [QUEUE_CLASS.expired]: 3,
  [QUEUE_CLASS.fair]: 4,
};

/** Indices of the walk's tasks, sorted by class, key and place. */
function order(walk: QueueWalk): number[] {
  const indices = Array.from({ length: walk.count }, (_, i) => i);
  return indices.sort(
    (a, b) =>
      RANK[walk.class[a]!]! - RANK[walk.class[b]!]! ||
      walk.key[a]! - walk.key[b]! ||
      walk.place[a]! - walk.place[b]!,
  );
}
