import { readFileSync } from 'node:fs';
import type { Word } from '../../../../runtime/edit/member.ts';
import { type GuestVirtual, guestVirtual } from '../../../../runtime/memory/address.ts';
import type { O1Members, O1Queue } from '../../../../runtime/technique/o1/members.ts';
import { ModelMemory } from '../../edit/model-memory.ts';

interface MeasuredMember {
  name: string;
  offset: number;
  size: number;
}
const facts = JSON.parse(
  readFileSync(new URL('../../../../kernels/facts/linux-2.6.16-x86_64-base.json', import.meta.url), 'utf8'),
) as { structs: Record<string, { size: number; fields: MeasuredMember[] }> };

function field(struct: string, name: string): Word {
  const found = facts.structs[struct]?.fields.find((fact) => fact.name === name);
  if (found === undefined) throw new Error(`the facts have no ${struct}.${name}`);
  return { offset: found.offset, size: Math.min(found.size, 8) as Word['size'] };
}

/** The measured layout of a real 2.6.16 kernel. */
export const members: O1Members = {
  rq: {
    lock: {
      name: 'rq.lock',
      kind: 'byte',
      word: { ...field('runqueue', 'lock'), role: 'number', type: 'unsigned int' },
    },
    nr_running: field('runqueue', 'nr_running'),
    curr: field('runqueue', 'curr'),
    idle: field('runqueue', 'idle'),
    active: field('runqueue', 'active'),
    expired: field('runqueue', 'expired'),
    arrays: field('runqueue', 'arrays').offset,
    raw_weighted_load: undefined,
  },
  prio_array: {
    size: facts.structs.prio_array!.size,
    nr_active: field('prio_array', 'nr_active'),
    bitmap_word: field('prio_array', 'bitmap'),
    queue: field('prio_array', 'queue').offset,
    priorities: 140,
  },
  task_struct: {
    state: field('task_struct', 'state'),
    prio: field('task_struct', 'prio'),
    static_prio: field('task_struct', 'static_prio'),
    run_list: field('task_struct', 'run_list').offset,
    array: field('task_struct', 'array'),
    thread_info: field('task_struct', 'thread_info'),
    load_weight: undefined,
    normal_prio: undefined,
    ptrace: field('task_struct', 'ptrace'),
  },
  thread_info: { flags: field('thread_info', 'flags'), cpu: field('thread_info', 'cpu') },
  list_head: { size: 16, next: field('list_head', 'next'), prev: field('list_head', 'prev') },
};

/**
 * The same with what 2.6.18 added for weighted load and priority inheritance, behind the structures' ends: where the
 * members are is the layout's to say.
 */
export const weightedLayout: O1Members = {
  ...members,
  rq: { ...members.rq, raw_weighted_load: { offset: facts.structs.runqueue!.size, size: 8 } },
  task_struct: {
    ...members.task_struct,
    load_weight: { offset: facts.structs.task_struct!.size, size: 8 },
    normal_prio: { offset: facts.structs.task_struct!.size + 8, size: 4 },
  },
};
/** Room for those members. */
const ADDED_BYTES = 16;

/** What a task of the model is: `queue` says where it is linked, null for nowhere. */
export interface O1ModelTask {
  address: GuestVirtual;
  cpu: number;
  prio: number;
  which: 'active' | 'expired' | null;
}

/** A guest with O(1) run queues in a fake domain, and a plain model of the same. */
export class O1ModelGuest extends ModelMemory {
  readonly queues: O1Queue[] = [];
  readonly tasks: O1ModelTask[] = [];
  /** Per CPU and array: the lists by priority, as arrays of tasks. */
  readonly lists = new Map<string, O1ModelTask[]>();
  readonly current: (O1ModelTask | 'idle')[] = [];
  readonly idle: GuestVirtual[] = [];

  constructor(cpus: number) {
    super();
    for (let cpu = 0; cpu < cpus; cpu++) this.#addQueue(cpu);
  }

  /** Links a new task at the end of a list. */
  addTask(cpu: number, prio: number, which: 'active' | 'expired'): O1ModelTask {
    const task: O1ModelTask = { address: this.#addThread(cpu), cpu, prio, which };
    this.tasks.push(task);
    this.listOf(cpu, which, prio).push(task);
    return task;
  }

  listOf(cpu: number, which: 'active' | 'expired', prio: number): O1ModelTask[] {
    const key = `${cpu} ${which} ${prio}`;
    const known = this.lists.get(key);
    if (known !== undefined) return known;
    const list: O1ModelTask[] = [];
    this.lists.set(key, list);
    return list;
  }

  setCurrent(cpu: number, task: O1ModelTask | 'idle'): void {
    this.current[cpu] = task;
  }

  /** Writes the model into the guest's memory. */
  write(): void {
    for (const { cpu, address } of this.queues) {
      const running = this.tasks.filter((task) => task.cpu === cpu && task.which !== null).length;
      this.put(address, members.rq.lock.word as Word, 1n);
      this.put(address, members.rq.nr_running, BigInt(running));
      const current = this.current[cpu]!;
      this.put(address, members.rq.curr, current === 'idle' ? this.idle[cpu]! : current.address);
      this.put(address, members.rq.idle, this.idle[cpu]!);
      for (const which of ['active', 'expired'] as const) {
        const array = this.arrayAddress(cpu, which);
        this.put(address, members.rq[which], array);
        this.#writeArray(cpu, which, array);
      }
    }
    for (const task of this.tasks) {
      this.put(task.address, members.task_struct.prio, BigInt(task.prio));
      this.put(task.address, members.task_struct.static_prio, BigInt(task.prio));
      const array = task.which === null ? 0n : this.arrayAddress(task.cpu, task.which);
      this.put(task.address, members.task_struct.array, array);
    }
  }

  arrayAddress(cpu: number, which: 'active' | 'expired'): GuestVirtual {
    const index = which === 'active' ? 0 : 1;
    return guestVirtual(
      this.queues[cpu]!.address + BigInt(members.rq.arrays + index * members.prio_array.size),
    );
  }

  #writeArray(cpu: number, which: 'active' | 'expired', array: GuestVirtual): void {
    const { queue, priorities, bitmap_word: bitmap, nr_active } = members.prio_array;
    const bits = [0n, 0n, 0n];
    bits[2] = 1n << BigInt(priorities - 128);
    let total = 0;
    for (let prio = 0; prio < priorities; prio++) {
      const head = array + BigInt(queue + prio * members.list_head.size);
      const tasks = this.listOf(cpu, which, prio);
      const ring = [head, ...tasks.map(({ address }) => address + BigInt(members.task_struct.run_list))];
      for (const [index, node] of ring.entries()) {
        this.put(node, members.list_head.next, ring[(index + 1) % ring.length]!);
        this.put(node, members.list_head.prev, ring[(index + ring.length - 1) % ring.length]!);
      }
      if (tasks.length > 0) bits[prio >> 6]! |= 1n << BigInt(prio & 63);
      total += tasks.length;
    }
    for (const [index, word] of bits.entries()) this.put(array + BigInt(8 * index), bitmap, word);
    this.put(array, nr_active, BigInt(total));
  }

  #addQueue(cpu: number): void {
    this.queues.push({ cpu, address: this.take(facts.structs.runqueue!.size + ADDED_BYTES) });
    this.idle.push(this.#addThread(cpu));
    this.current.push('idle');
  }

  #addThread(cpu: number): GuestVirtual {
    const task = this.take(facts.structs.task_struct!.size + ADDED_BYTES);
    const info = this.take(facts.structs.thread_info!.size);
    this.put(task, members.task_struct.thread_info, info);
    this.put(info, members.thread_info.cpu, BigInt(cpu));
    return task;
  }
}
