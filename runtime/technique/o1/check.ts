import { inconsistent } from '../../edit/inconsistent.ts';
import { follow, get } from '../../edit/member.ts';
import { type MemoryView, wordIn } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';
import type { O1Members, O1Queue } from './members.ts';

/** Bounds every walk: a queue with more tasks than this is a lie. */
const MAX_TASKS = 65_536;

/** Addresses of a queue's two arrays; `active` and `expired` each point to one of them. */
export function arraysOf(members: O1Members, queue: O1Queue): [GuestVirtual, GuestVirtual] {
  const first = advance(queue.address, members.rq.arrays);
  return [first, advance(first, members.prio_array.size)];
}

/** Head of the list of one priority. */
export function headOf(members: O1Members, array: GuestVirtual, prio: number): GuestVirtual {
  return advance(array, members.prio_array.queue + prio * members.list_head.size);
}

/** The bitmap word with the bit of one priority, and that bit's mask. Bits count as in the kernel's bitops. */
export function bitOf(
  members: O1Members,
  array: GuestVirtual,
  prio: number,
): { address: GuestVirtual; mask: bigint } {
  const { offset, size } = members.prio_array.bitmap_word;
  const bits = size * 8;
  const address = advance(array, offset + Math.floor(prio / bits) * size);
  return { address, mask: 1n << BigInt(prio % bits) };
}

/**
 * Checks a whole run queue: lists are linked both ways, every task knows its array and priority, the bitmap shows which
 * lists are not empty, and both counters are right.
 * @throws DomschedError `guest-inconsistent`, `walk-unbounded`
 */
export function checkQueue(members: O1Members, memory: MemoryView, queue: O1Queue): void {
  const { rq } = members;
  const name = `rq[${queue.cpu}]`;
  const active = follow(memory, queue.address, rq.active);
  const expired = follow(memory, queue.address, rq.expired);
  const [first, second] = arraysOf(members, queue);
  if (!(active === first && expired === second) && !(active === second && expired === first)) {
    throw inconsistent(`${name}.active and .expired are not its two arrays`, { cpu: queue.cpu });
  }
  let linked = 0;
  let weight = 0n;
  for (const [array, which] of [
    [active, 'active'],
    [expired, 'expired'],
  ] as const) {
    const found = checkArray(members, memory, array, `${name}.${which}`);
    linked += found.tasks;
    weight += found.weight;
  }
  const nrRunning = get(memory, queue.address, rq.nr_running);
  if (nrRunning !== BigInt(linked)) {
    throw inconsistent(`${name}.nr_running is ${nrRunning} with ${linked} tasks linked`, { cpu: queue.cpu });
  }
  if (rq.raw_weighted_load === undefined) return;
  const load = get(memory, queue.address, rq.raw_weighted_load);
  if (load !== weight) {
    throw inconsistent(`${name}.raw_weighted_load is ${load} and its tasks' sum ${weight}`, {
      cpu: queue.cpu,
    });
  }
}

function checkArray(members: O1Members, memory: MemoryView, array: GuestVirtual, name: string) {
  const { prio_array, task_struct } = members;
  const lists = memory.block(
    advance(array, prio_array.queue),
    prio_array.priorities * members.list_head.size,
  );
  const bitmap = memory.block(advance(array, prio_array.bitmap_word.offset), bitmapBytes(members));
  let tasks = 0;
  let weight = 0n;
  for (let prio = 0; prio < prio_array.priorities; prio++) {
    const bit = hasBit(members, bitmap, prio);
    if (!bit && isEmptyHead(members, lists, array, prio)) continue;
    const linked = listOf(
      members,
      memory,
      headOf(members, array, prio),
      `${name}.queue[${prio}]`,
      MAX_TASKS - tasks,
    );
    if (bit !== linked.length > 0) {
      throw inconsistent(
        `${name}.bitmap bit ${prio} is ${bit ? 1 : 0} with ${linked.length} tasks in its list`,
      );
    }
    for (const task of linked) {
      const where = `task ${formatAddress(task)} in ${name}.queue[${prio}]`;
      if (follow(memory, task, task_struct.array) !== array) throw inconsistent(`${where} has another array`);
      if (get(memory, task, task_struct.prio) !== BigInt(prio))
        throw inconsistent(`${where} has another prio`);
      if (task_struct.load_weight !== undefined) weight += get(memory, task, task_struct.load_weight);
    }
    tasks += linked.length;
  }
  if (!hasBit(members, bitmap, prio_array.priorities))
    throw inconsistent(`${name}.bitmap has no sentinel bit`);
  const nrActive = get(memory, array, prio_array.nr_active);
  if (nrActive !== BigInt(tasks))
    throw inconsistent(`${name}.nr_active is ${nrActive} with ${tasks} tasks linked`);
  return { tasks, weight };
}

/** Bytes of the bitmap, in whole words, with room for the sentinel bit. */
function bitmapBytes(members: O1Members): number {
  const { size } = members.prio_array.bitmap_word;
  return Math.ceil((members.prio_array.priorities + 1) / (8 * size)) * size;
}

function hasBit(members: O1Members, bitmap: DataView, prio: number): boolean {
  const { offset, size } = members.prio_array.bitmap_word;
  const { address, mask } = bitOf(members, 0n as GuestVirtual, prio);
  return (wordIn(bitmap, Number(address) - offset, size) & mask) !== 0n;
}

/** Whether both links of a list head lead to itself. */
function isEmptyHead(members: O1Members, lists: DataView, array: GuestVirtual, prio: number): boolean {
  const { size, next, prev } = members.list_head;
  const head = headOf(members, array, prio);
  return [next, prev].every((link) => wordIn(lists, prio * size + link.offset, link.size) === head);
}

/** Whether `task` is linked in the list of its priority, in either array of the queue. */
export function isLinked(
  members: O1Members,
  memory: MemoryView,
  queue: O1Queue,
  task: GuestVirtual,
): boolean {
  const prio = Number(get(memory, task, members.task_struct.prio));
  if (prio >= members.prio_array.priorities)
    throw inconsistent(`task ${formatAddress(task)} has priority ${prio}`);
  return arraysOf(members, queue).some((array) => {
    const name = `rq[${queue.cpu}].queue[${prio}]`;
    return listOf(members, memory, headOf(members, array, prio), name, MAX_TASKS).includes(task);
  });
}

/** Tasks of one list. The walk ends at a node that does not link back to its predecessor, so it ends on a cycle too. */
function listOf(
  members: O1Members,
  memory: MemoryView,
  head: GuestVirtual,
  name: string,
  limit: number,
): GuestVirtual[] {
  const { list_head, task_struct } = members;
  const tasks: GuestVirtual[] = [];
  let previous = head;
  for (let node = follow(memory, head, list_head.next); ; node = follow(memory, node, list_head.next)) {
    if (follow(memory, node, list_head.prev) !== previous) {
      throw inconsistent(`${name}: node ${formatAddress(node)} does not link back`, {
        node: formatAddress(node),
      });
    }
    if (node === head) return tasks;
    if (tasks.length === limit)
      throw new DomschedError('walk-unbounded', `${name} has more than ${limit} tasks`);
    tasks.push(advance(node, -task_struct.run_list));
    previous = node;
  }
}
