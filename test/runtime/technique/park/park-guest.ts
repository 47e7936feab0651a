import type { Word } from '../../../../runtime/edit/member.ts';
import type { LayoutView } from '../../../../runtime/layout/view.ts';
import { advance, type GuestVirtual } from '../../../../runtime/memory/address.ts';
import type { ParkGuest } from '../../../../runtime/surgeon/park-holder.ts';
import type { WakeCpu } from '../../../../runtime/surgeon/wake-holder.ts';
import { parkMembers } from '../../../../runtime/technique/park/members.ts';
import { niceMembers } from '../../../../runtime/technique/park/nice.ts';
import { ModelMemory } from '../../edit/model-memory.ts';
import { niceBits, parkBits, TASK_STOPPED, TIF, TRAP_FREEZE, TRAP_STATE } from '../bits.ts';

export { TRAP_FREEZE, TRAP_STATE };

export const NOTIFY_RESUME = TIF.NOTIFY_RESUME;
/** PF_EXITING; EXIT_DEAD and EXIT_ZOMBIE; TASK_DEAD */
const EXITING = 4n;
const EXIT_DEAD = 0x10n;
const EXIT_ZOMBIE = 0x20n;
const TASK_DEAD = 0x80n;
/** include/linux/poison.h, POISON_FREE */
const POISON = 0x6b;
/** include/linux/irq_work.h */
const PENDING = 1n;
const BUSY = 2n;

/** Where a thread of the model is. The kernel's own code takes it from one to the next. */
export type Stage =
  /** Runs its program, or is ready to. */
  | 'user'
  /** Asleep in a system call. */
  | 'sleeping'
  /** Asleep in `do_signal_stop()`, where the freezer counts it. */
  | 'stopped'
  /** `task_work_run()` has taken the list. */
  | 'working'
  /** `do_freezer_trap()` has set the state, then `cgroup_enter_frozen()` the bit. */
  | 'entering'
  | 'frozen'
  /** Off the CPU. */
  | 'trapped'
  /** Has ended: a zombie, then one whose parent has asked for it. RCU drops the guest's reference to the latter. */
  | 'dead'
  | 'reaped';

export interface ModelThread {
  readonly address: GuestVirtual;
  stage: Stage;
  signalPending: boolean;
  /** SIGKILL is pending. */
  killed: boolean;
  /** Works that the kernel queued and that have not run. */
  readonly queued: Set<bigint>;
  /** The list that `task_work_run()` holds. */
  taken: bigint[];
  /** Steps of its own program. */
  progress: number;
}

/** A guest with the real layout of a kernel, whose kernel does only what parking touches. */
export class ParkModel extends ModelMemory {
  readonly guest: ParkGuest;
  readonly threads: ModelThread[] = [];
  readonly cgroup: GuestVirtual;
  readonly sighand: GuestVirtual;
  /** Irq works of the guest's own, and how often each ran. */
  readonly foreign = new Map<bigint, number>();
  /** Memory that the guest has freed: nobody may touch it. */
  readonly freed: { readonly start: bigint; readonly end: bigint }[] = [];
  readonly #layout: LayoutView;
  readonly #cssSet: GuestVirtual;

  constructor(layout: LayoutView, cpus = 2) {
    super();
    this.#layout = layout;
    const resolved = parkMembers(layout);
    const queues = Array.from({ length: cpus }, (_, cpu): WakeCpu => {
      const queue = this.take(layout.requireStruct('rq').size);
      const inQueue = resolved.irqWorkVariable === 'runqueues';
      const scratch = inQueue ? queue : this.take(layout.requireStruct('tss_struct').size);
      return { cpu, queue, lazyList: this.take(8), scratch };
    });
    const onlineMask = this.take(8);
    const [recalcSigpending, processTimeout, putTask] = [this.take(64), this.take(64), this.take(64)];
    const nice = {
      members: niceMembers(layout),
      bits: niceBits,
      fairSchedClass: this.take(64),
      prioToWeight: this.take(160),
      prioToWmult: this.take(160),
      queues: queues.map(({ cpu, queue }) => ({ cpu, address: queue })),
    };
    const functions = { recalcSigpending, processTimeout, putTask };
    this.guest = { members: resolved, bits: parkBits, cpus: queues, onlineMask, ...functions, nice };
    this.put(onlineMask, { offset: 0, size: 8 }, (1n << BigInt(cpus)) - 1n);
    this.sighand = this.take(layout.requireStruct('sighand_struct').size);
    this.#cssSet = this.take(layout.requireStruct('css_set').size);
    this.cgroup = this.take(layout.requireStruct('cgroup').size);
    this.put(this.#cssSet, resolved.css_set.dfl_cgrp, this.cgroup);
    for (const { queue } of queues) {
      const idle = this.take(64);
      this.put(queue, resolved.rq.curr, idle);
      this.put(queue, resolved.rq.idle, idle);
    }
  }

  addThread(stage: 'user' | 'sleeping', parent?: ModelThread): ModelThread {
    const { task_struct, fpu } = this.guest.members;
    const { size } = this.#layout.requireStruct('task_struct');
    const address = this.take(size + (fpu === null ? 0 : this.#layout.requireStruct('fpu').size));
    if (fpu !== null) this.put(address, fpu.fpstate, advance(address, fpu.own));
    // dup_task_struct() copies all of it.
    if (parent)
      this.domain.image.store(Number(address), this.domain.image.load(Number(parent.address), size));
    this.put(address, task_struct.usage, 1n);
    this.put(address, task_struct.mm, 0x1000n);
    this.put(address, task_struct.sighand, this.sighand);
    this.put(address, task_struct.cgroups, this.#cssSet);
    this.put(address, task_struct.jobctl, 0n);
    this.put(address, task_struct.task_works, 0n);
    this.put(address, task_struct.thread_flags, 0n);
    const thread: ModelThread = {
      address,
      stage,
      signalPending: false,
      killed: false,
      queued: new Set(),
      taken: [],
      progress: 0,
    };
    this.threads.push(thread);
    this.#setState(thread, stage === 'sleeping' ? 1n : 0n, stage === 'user');
    return thread;
  }

  /** A thread is there to be seen until it is reaped. */
  get present(): ModelThread[] {
    return this.threads.filter(({ stage }) => stage !== 'reaped');
  }

  /** SIGKILL: it wakes who sleeps so that signals may (TASK_INTERRUPTIBLE). */
  kill(thread: ModelThread): void {
    const { state } = this.guest.members.task_struct;
    if (thread.stage === 'dead' || thread.stage === 'reaped') return;
    thread.killed = true;
    if ((this.load(thread.address, state) & 1n) !== 0n) this.#setState(thread, 0n, true);
  }

  /** wait4() of its parent, and the grace period after it: no CPU that is idle holds that back. */
  reap(thread: ModelThread): void {
    if (thread.stage !== 'dead') return;
    thread.stage = 'reaped';
    this.put(thread.address, this.guest.members.task_struct.exit_state, EXIT_DEAD);
    this.#putTask(thread.address);
  }

  /** @throws Error when bytes are touched that the guest has freed */
  checkAllocated(address: bigint, size: number, who: string): void {
    if (this.freed.some(({ start, end }) => address < end && start < address + BigInt(size)))
      throw new Error(`${who} touched freed memory at 0x${address.toString(16)}`);
  }

  /** put_task_struct() */
  #putTask(task: bigint): void {
    this.checkAllocated(task, 1, 'the guest');
    const { usage } = this.guest.members.task_struct;
    const references = this.load(task, usage) - 1n;
    if (references < 0n) throw new Error('refcount_t: underflow; use-after-free');
    this.put(task, usage, references);
    if (references > 0n) return;
    const { size } = this.#layout.requireStruct('task_struct');
    this.domain.image.store(Number(task), new Uint8Array(size).fill(POISON));
    this.freed.push({ start: task, end: task + BigInt(size) });
  }

  /** do_exit(): all works run, then nothing runs any more. */
  #die(thread: ModelThread): void {
    const { task_struct } = this.guest.members;
    const works = this.#list(thread);
    this.put(thread.address, task_struct.task_works, 0n);
    thread.taken = works;
    this.#runWorks(thread);
    this.put(thread.address, task_struct.flags, EXITING);
    this.put(thread.address, task_struct.exit_state, EXIT_ZOMBIE);
    this.put(thread.address, task_struct.frozen, 0n);
    this.#setState(thread, TASK_DEAD, false);
    thread.stage = 'dead';
  }

  #runWorks(thread: ModelThread): void {
    const { task_struct, callback_head } = this.guest.members;
    const jobctl = this.load(thread.address, task_struct.jobctl);
    for (const work of thread.taken) {
      this.checkAllocated(work, 16, 'a thread that runs its works');
      const func = this.load(work, callback_head.func);
      if (func === this.guest.recalcSigpending) thread.signalPending = (jobctl & TRAP_FREEZE) !== 0n;
      else if (func === this.guest.putTask) this.#putTask(work - BigInt(task_struct.rcu));
      else if (!thread.queued.delete(work)) throw new Error('a work ran twice, or none of the guest ran');
    }
    thread.taken = [];
  }

  /** task_work_add() of the guest's own. */
  addWork(thread: ModelThread): void {
    const { task_struct, callback_head } = this.guest.members;
    const work = this.take(16);
    this.put(work, callback_head.next, this.load(thread.address, task_struct.task_works));
    this.put(work, callback_head.func, 0xdead_0000n);
    this.put(thread.address, task_struct.task_works, work);
    this.#setFlag(thread, true);
    thread.queued.add(work);
  }

  /** irq_work_queue() of a lazy work of the guest's own. */
  addIrqWork(cpu: number): void {
    const { irq_work } = this.guest.members;
    const work = this.take(irq_work.size);
    const list = this.guest.cpus[cpu]!.lazyList;
    this.put(work, irq_work.next, this.load(list, HEAD));
    this.put(work, irq_work.flags, PENDING | BUSY | irq_work.lazy);
    this.put(work, irq_work.func, 0xbeef_0000n);
    this.put(list, HEAD, work);
    this.foreign.set(work, 0);
  }

  /** irq_work_run_list(lazy_list). */
  tick(cpu: number): void {
    const { irq_work } = this.guest.members;
    const list = this.guest.cpus[cpu]!.lazyList;
    let work = this.load(list, HEAD);
    this.put(list, HEAD, 0n);
    for (let count = 0; work !== 0n; count++) {
      if (count > 1000) throw new Error('the guest hangs in its list of irq works');
      this.checkAllocated(work, irq_work.size, 'a CPU that runs its irq works');
      const next = this.load(work, irq_work.next);
      const flags = this.load(work, irq_work.flags);
      this.put(work, irq_work.flags, flags & ~PENDING);
      this.#callIrqWork(work);
      this.put(work, irq_work.flags, flags & ~PENDING & ~BUSY);
      work = next;
    }
  }

  /** The kernel takes a thread one stage on; `user` and `sleeping` may also go to each other. */
  step(thread: ModelThread): void {
    const { task_struct } = this.guest.members;
    if (thread.stage === 'dead' || thread.stage === 'reaped') return;
    const jobctl = this.load(thread.address, task_struct.jobctl);
    if (thread.killed && thread.stage === 'user') {
      this.#die(thread);
      return;
    }
    switch (thread.stage) {
      case 'sleeping':
        thread.stage = 'user';
        this.#setState(thread, 0n, true);
        return;
      case 'user': {
        if ((this.load(thread.address, task_struct.thread_flags) & NOTIFY_RESUME) === 0n) {
          thread.progress += 1;
          return;
        }
        this.#setFlag(thread, false);
        thread.taken = this.#list(thread);
        this.put(thread.address, task_struct.task_works, 0n);
        thread.stage = 'working';
        return;
      }
      case 'working':
        this.#runWorks(thread);
        thread.stage = 'user';
        if (thread.signalPending && (jobctl & TRAP_FREEZE) !== 0n && !thread.killed) this.#enterTrap(thread);
        thread.signalPending = false;
        return;
      case 'entering':
        this.put(thread.address, task_struct.frozen, task_struct.frozenMask);
        thread.stage = 'frozen';
        return;
      case 'frozen':
        // schedule(): a wake-up in between has made it runnable again.
        if (this.load(thread.address, task_struct.state) === 0n) this.#leaveTrap(thread);
        else {
          this.#setState(thread, TRAP_STATE, false);
          thread.stage = 'trapped';
        }
        return;
      case 'stopped':
      case 'trapped':
        if (this.load(thread.address, task_struct.state) === 0n) this.#leaveTrap(thread);
    }
  }

  /** A thread that runs goes to sleep in a system call. */
  sleep(thread: ModelThread): void {
    if (thread.stage !== 'user') return;
    thread.stage = 'sleeping';
    this.#setState(thread, 1n, false);
  }

  /** SIGSTOP: `get_signal()` has run all works before, and looked for the trap. */
  stop(thread: ModelThread): void {
    const { task_struct } = this.guest.members;
    const works = this.load(thread.address, task_struct.task_works);
    const trap = this.load(thread.address, task_struct.jobctl) & TRAP_FREEZE;
    if (thread.stage !== 'user' || works !== 0n || trap !== 0n) return;
    thread.stage = 'stopped';
    this.put(thread.address, task_struct.frozen, task_struct.frozenMask);
    this.#setState(thread, TASK_STOPPED, false);
  }

  /** SIGCONT */
  proceed(thread: ModelThread): void {
    if (this.load(thread.address, this.guest.members.task_struct.state) !== TASK_STOPPED) return;
    this.#setState(thread, 0n, true);
  }

  #enterTrap(thread: ModelThread): void {
    thread.stage = 'entering';
    this.#setState(thread, TRAP_STATE, true);
  }

  /** get_signal() looks again: the trap while it is set, else cgroup_leave_frozen(). */
  #leaveTrap(thread: ModelThread): void {
    const { task_struct } = this.guest.members;
    if ((this.load(thread.address, task_struct.jobctl) & TRAP_FREEZE) !== 0n && !thread.killed) {
      this.#enterTrap(thread);
      return;
    }
    this.put(thread.address, task_struct.frozen, 0n);
    this.#setState(thread, 0n, true);
    thread.stage = 'user';
  }

  #callIrqWork(work: bigint): void {
    const { irq_work, task_struct } = this.guest.members;
    const func = this.load(work, irq_work.func);
    if (func === this.guest.processTimeout) {
      const task = this.load(work, irq_work.task);
      this.checkAllocated(task, 1, 'try_to_wake_up()');
      const thread = this.threads.find(({ address }) => address === task);
      if (thread === undefined) throw new Error('the guest woke what is no task');
      // try_to_wake_up(p, TASK_NORMAL)
      if ((this.load(task, task_struct.state) & 3n) !== 0n) {
        this.put(task, task_struct.state, 0n);
        this.put(task, task_struct.on_rq, 1n);
      }
      return;
    }
    const count = this.foreign.get(work);
    if (count === undefined) throw new Error('the guest ran what is no irq work');
    this.foreign.set(work, count + 1);
  }

  #list(thread: ModelThread): bigint[] {
    const { task_struct, callback_head } = this.guest.members;
    const works: bigint[] = [];
    for (let work = this.load(thread.address, task_struct.task_works); work !== 0n; ) {
      if (works.length > 1000) throw new Error('the guest hangs in its list of works');
      works.push(work);
      work = this.load(work, callback_head.next);
    }
    return works;
  }

  #setFlag({ address }: ModelThread, on: boolean): void {
    const { thread_flags } = this.guest.members.task_struct;
    const flags = this.load(address, thread_flags);
    this.put(address, thread_flags, on ? flags | NOTIFY_RESUME : flags & ~NOTIFY_RESUME);
  }

  #setState({ address }: ModelThread, state: bigint, queued: boolean): void {
    const { task_struct } = this.guest.members;
    this.put(address, task_struct.state, state);
    this.put(address, task_struct.on_rq, queued ? 1n : 0n);
    this.put(address, task_struct.on_cpu, state !== 0n && queued ? 1n : 0n);
  }
}

const HEAD: Word = { offset: 0, size: 8 };

/** All bytes that parking may leave behind in a thread and in the run queues are zero, and so is what it referred to. */
export function isClean(model: ParkModel, { address }: ModelThread): boolean {
  const { workHome, irqWorkHomes, irq_work, task_struct } = model.guest.members;
  const bytes = [
    ...model.domain.image.load(Number(address) + workHome, 16),
    ...model.guest.cpus.flatMap(({ scratch }) =>
      irqWorkHomes.flatMap((home) => [...model.domain.image.load(Number(scratch) + home, irq_work.size)]),
    ),
  ];
  return bytes.every((byte) => byte === 0) && model.load(address, task_struct.usage) === 1n;
}
