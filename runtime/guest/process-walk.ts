import { DomschedError } from '../error.ts';
import type { GuestVirtual } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import type { Arena, ObjectTable } from './arena.ts';
import { adjustCpuTime, type CpuTime } from './cpu-time.ts';
import { Description } from './description.ts';
import { type KernelPointer, movePointer, NO_POINTER, pointerAddress } from './pointer.ts';
import type { Process } from './process.ts';
import { type Slot, wordsOf } from './shape.ts';
import { decodeState, policyName } from './state.ts';
import type { SignalSlots, TaskSlots, ThreadInfoSlots } from './task-slots.ts';
import { printableBytes } from './text.ts';

/** Static priority of nice 0 (Linux include/linux/sched/prio.h, DEFAULT_PRIO; the same in O(1) kernels). */
const NICE_0_PRIO = 120;
/**
 * Bits of `task_struct.flags` (Linux include/linux/sched.h), by which processes are described. Before the first edit
 * they are compared with what the kernel's own code has.
 */
export const PROCESS_FLAGS = {
  /** The same since 2.6.0. */
  PF_EXITING: 0x4,
  /** Since "introduce PF_KTHREAD flag", 2.6.27. */
  PF_KTHREAD: 0x20_0000,
  /** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, both at once: "prctl: PR_{G,S}ET_IO_FLUSHER", 5.6. */
  PR_IO_FLUSHER: 0x8_0000 | 0x10_0000,
} as const;
const { PF_EXITING, PF_KTHREAD, PR_IO_FLUSHER } = PROCESS_FLAGS;
/**
 * PID_MAX_LIMIT of 64-bit kernels (Linux include/linux/threads.h, the same since 2.6.0). Our maps have pids as keys,
 * and a lying guest must not choose numbers that meet in one bucket; below this limit there are too few of them.
 */
const MAX_PID = 4_194_304;
const NS_PER_SECOND = 1e9;
const WORD = 0x1_0000_0000;
/** Interruptible and uninterruptible sleep, in all kernels: as most tasks are. */
const PLAIN_SLEEP = 0x3;

/** Tables of a guest's arena that tasks need. */
export interface ProcessTables {
  readonly tasks: ObjectTable<Description>;
  readonly signals: ObjectTable<never>;
  readonly threadInfos: ObjectTable<never>;
}

/** Facts about the kernel that a walk needs. */
export interface ProcessSlots {
  readonly task: TaskSlots;
  readonly signal: SignalSlots;
  readonly threadInfo: ThreadInfoSlots;
  /** Length of a timer tick in ns, for kernels that count CPU time in ticks. */
  readonly tickNs: number;
}

/** How a task stands to others at a look. */
interface Circumstances {
  /** Indices of all tasks that are on a CPU. */
  readonly onCpu: ReadonlySet<number>;
  readonly running: boolean;
  readonly ppid: number;
  /** It is described as a thread. */
  readonly single: boolean;
}

/**
 * Lists all processes and threads over copies of the guest's objects: from `init_task` around the list of processes,
 * and around the threads of each. Every link is checked both ways.
 *
 * One that is as it was at the last look is the same object as then: most processes rest most of the time.
 */
export class ProcessWalk {
  #arena: Arena;
  #tables: ProcessTables;
  #slots: ProcessSlots;
  #space!: AddressSpace;
  /** Indices in the table of tasks: the first thread of each process, and all threads, grouped by process. */
  #leaders: number[] = [];
  #threads: number[][] = [];
  /** Positions of the words that descriptions are made from. */
  readonly #taskWords: Int32Array;
  readonly #signalWords: Int32Array;
  readonly #threadInfoWords: Int32Array;

  constructor(arena: Arena, tables: ProcessTables, slots: ProcessSlots) {
    this.#arena = arena;
    this.#tables = tables;
    this.#slots = slots;
    this.#taskWords = wordsOf(slots.task);
    this.#signalWords = wordsOf(slots.signal);
    this.#threadInfoWords = wordsOf(slots.threadInfo);
  }

  /**
   * Collects all tasks. The arena must have begun a snapshot.
   * @throws DomschedError `guest-inconsistent`, `walk-unbounded`
   */
  run(space: AddressSpace, initTask: KernelPointer): void {
    this.#space = space;
    this.#leaders = [];
    this.#threads = [];
    this.#listLeaders(initTask);
    this.#listThreads();
  }

  /**
   * The collected tasks as objects, one per process or one per thread.
   * @param current pointers to the tasks that are on a CPU
   */
  processes(threads: boolean, current: Iterable<number>): Process[] {
    const { tasks, threadInfos } = this.#tables;
    // Uses indices because a guest could choose pointers that meet in one bucket of a set.
    const onCpu = new Set(Array.from(current, (pointer) => tasks.find(pointer)));
    const { task } = this.#slots;
    // One more scatter read brings parents and thread_infos that are in no list yet.
    for (const members of this.#threads) {
      for (const index of members) {
        const at = tasks.position(index, this.#space);
        const parent = this.#arena.pointer(at, task.real_parent);
        if (parent !== NO_POINTER) tasks.want(parent);
        if (task.thread_info !== undefined) threadInfos.want(this.#arena.pointer(at, task.thread_info));
      }
    }
    const found: Process[] = [];
    for (const [i, leader] of this.#leaders.entries()) {
      const members = this.#threads[i]!;
      if (threads) for (const index of members) found.push(this.#describe(index, members, onCpu, true));
      else found.push(this.#describe(leader, members, onCpu, false));
    }
    return found;
  }

  #listLeaders(initTask: KernelPointer): void {
    const { tasks } = this.#tables;
    const { task } = this.#slots;
    const head = movePointer(initTask, task.tasks.offset);
    let index = tasks.want(initTask);
    let node = head;
    for (;;) {
      const at = tasks.position(index, this.#space);
      const next = this.#arena.pointer(at, task.tasks.next);
      if (next === NO_POINTER)
        throw this.#wrong('the list of processes has a link that is no pointer', index);
      const following = tasks.want(movePointer(next, -task.tasks.offset));
      const followingAt = tasks.position(following, this.#space);
      if (this.#arena.pointer(followingAt, task.tasks.prev) !== node) {
        throw this.#wrong('the list of processes does not link back', following);
      }
      if (next === head) return;
      if (this.#leaders.length > tasks.limit) throw this.#wrong('the list of processes does not end', index);
      this.#leaders.push(following);
      index = following;
      node = next;
    }
  }

  #listThreads(): void {
    const { tasks, signals } = this.#tables;
    const { task, signal } = this.#slots;
    for (const leader of this.#leaders) {
      const pointer = this.#arena.pointer(tasks.position(leader, this.#space), task.signal);
      if (pointer !== NO_POINTER) signals.want(pointer);
    }
    let total = 0;
    for (const leader of this.#leaders) {
      const at = tasks.position(leader, this.#space);
      const shared = this.#arena.pointer(at, task.signal);
      const own = movePointer(tasks.pointers[leader] as KernelPointer, task.thread_node.offset);
      let members: number[];
      if (shared === NO_POINTER) {
        // The process is being released; its threads are gone.
        members = [leader];
      } else if (signal.thread_head === undefined) {
        members = [
          leader,
          ...this.#ring(own, this.#arena.pointer(at, task.thread_node.next), own, leader, total),
        ];
      } else {
        const head = movePointer(shared, signal.thread_head.offset);
        const signalAt = signals.position(signals.find(shared), this.#space);
        members = this.#ring(
          head,
          this.#arena.pointer(signalAt, signal.thread_head.next),
          head,
          leader,
          total,
        );
      }
      total += members.length;
      this.#threads.push(members);
    }
  }

  /** Tasks from `node` around to `head`. */
  #ring(
    head: KernelPointer,
    node: KernelPointer,
    back: KernelPointer,
    leader: number,
    total: number,
  ): number[] {
    const { tasks } = this.#tables;
    const { task } = this.#slots;
    const tgid = this.#arena.number(tasks.position(leader, this.#space), task.tgid);
    const members: number[] = [];
    for (let previous = back; node !== head; ) {
      if (node === NO_POINTER) throw this.#wrong('a list of threads has a link that is no pointer', leader);
      if (total + members.length > tasks.limit) throw this.#wrong('a list of threads does not end', leader);
      const index = tasks.want(movePointer(node, -task.thread_node.offset));
      const at = tasks.position(index, this.#space);
      if (this.#arena.pointer(at, task.thread_node.prev) !== previous) {
        throw this.#wrong('a list of threads does not link back', index);
      }
      if (this.#arena.number(at, task.tgid) !== tgid) {
        throw this.#wrong('a list of threads leads to another process', index);
      }
      members.push(index);
      previous = node;
      node = this.#arena.pointer(at, task.thread_node.next);
    }
    return members;
  }

  /** @param single describe one thread instead of its whole process */
  #describe(index: number, members: readonly number[], onCpu: ReadonlySet<number>, single: boolean): Process {
    const { tasks } = this.#tables;
    const at = tasks.position(index, this.#space);
    const circumstances = { onCpu, running: onCpu.has(index), ppid: this.#parent(at), single };
    let description = tasks.notes[index];
    if (description === undefined) {
      description = new Description();
      tasks.notes[index] = description;
    }
    this.#tell(description, index, at, members, circumstances);
    return description.end() ?? description.keep(this.#process(index, at, members, circumstances));
  }

  /** Tells all words that {@link #process} uses. */
  #tell(
    description: Description,
    index: number,
    at: number,
    members: readonly number[],
    { onCpu, running, ppid, single }: Circumstances,
  ): void {
    const { tasks, signals, threadInfos } = this.#tables;
    const { task } = this.#slots;
    const arena = this.#arena;
    description.begin();
    description.put((running ? 1 : 0) + (single ? 2 : 0));
    description.put(ppid);
    description.put(members.length);
    arena.tell(at, this.#taskWords, description);
    if (task.thread_info !== undefined) {
      const info = threadInfos.find(arena.pointer(at, task.thread_info));
      const infoAt = info < 0 ? -1 : threadInfos.tryPosition(info, this.#space);
      if (infoAt >= 0) arena.tell(infoAt, this.#threadInfoWords, description);
    }
    if (single) return;
    const shared = arena.pointer(at, task.signal);
    if (shared !== NO_POINTER) {
      const signalAt = signals.position(signals.find(shared), this.#space);
      arena.tell(signalAt, this.#signalWords, description);
    }
    for (const member of members) {
      if (member === index) continue;
      const pointer = tasks.pointers[member]!;
      description.put(onCpu.has(member) ? 1 : 0);
      description.put(pointer | 0);
      description.put((pointer / WORD) | 0);
      arena.tell(tasks.position(member, this.#space), this.#taskWords, description);
    }
  }

  #process(
    index: number,
    at: number,
    members: readonly number[],
    { onCpu, running, ppid, single }: Circumstances,
  ): Process {
    const { task } = this.#slots;
    const arena = this.#arena;
    const pointer = this.#tables.tasks.pointers[index] as KernelPointer;
    const rawComm = arena.text(at, task.comm);
    const flags = arena.number(at, task.flags);
    const exitState = arena.number(at, task.exit_state);
    const { utimeNs, stimeNs, runtimeNs } = this.#cpuTime(at, single ? [index] : members, single);
    return {
      pid: this.#pid(at, task.pid),
      tgid: this.#pid(at, task.tgid),
      ppid,
      comm: printableBytes(rawComm),
      rawComm,
      state: decodeState(task.stateBits, arena.number(at, task.state), exitState, running),
      cpu: this.#cpu(at),
      nice: arena.number(at, task.static_prio) - NICE_0_PRIO,
      policy: policyName(arena.number(at, task.policy)),
      utimeNs,
      stimeNs,
      runtimeNs,
      ...this.#queued(at, single ? [index] : members, single),
      threads: members.length,
      kernelThread: this.#isKernelThread(at, flags, exitState),
      ...((flags & PR_IO_FLUSHER) === PR_IO_FLUSHER && { ioFlusher: true as const }),
      exiting: (flags & PF_EXITING) !== 0,
      ...this.#suspects(single ? [index] : members, onCpu),
      address: pointerAddress(pointer),
      startTimeNs: this.#startTime(at),
    };
  }

  /**
   * Threads of a process whose words no thread has that nobody holds, but for a moment: asked for something by
   * `jobctl`, as the freezer trap is; in a state of kernel threads; or ready to run and in no queue.
   */
  #suspects(members: readonly number[], onCpu: ReadonlySet<number>): Pick<Process, 'suspects'> {
    const { tasks } = this.#tables;
    const { task } = this.#slots;
    const arena = this.#arena;
    let suspects: GuestVirtual[] | undefined;
    for (const member of members) {
      const at = tasks.position(member, this.#space);
      const word = arena.number(at, task.state);
      const rests = (word & PLAIN_SLEEP) !== 0 && !this.#isAsked(at);
      if (rests || !this.#looksHeld(at, word, onCpu.has(member))) continue;
      suspects ??= [];
      suspects.push(pointerAddress(tasks.pointers[member] as KernelPointer));
    }
    return suspects === undefined ? {} : { suspects };
  }

  #looksHeld(at: number, word: number, onCpu: boolean): boolean {
    const { task } = this.#slots;
    const arena = this.#arena;
    const flags = arena.number(at, task.flags);
    const exitState = arena.number(at, task.exit_state);
    if ((flags & PF_EXITING) !== 0 || this.#isKernelThread(at, flags, exitState)) return false;
    switch (decodeState(task.stateBits, word, exitState, onCpu)) {
      case 'parked':
        return true;
      case 'ready': {
        const isQueued =
          task.on_rq === undefined
            ? task.array !== undefined && arena.pointer(at, task.array) !== NO_POINTER
            : arena.number(at, task.on_rq) !== 0;
        return word !== 0 || !isQueued || this.#isAsked(at);
      }
      case 'sleeping':
      case 'disk-sleep':
        return this.#isAsked(at);
      default:
        return false;
    }
  }

  #isAsked(at: number): boolean {
    const { jobctl } = this.#slots.task;
    return jobctl !== undefined && this.#arena.number(at, jobctl) !== 0;
  }

  #isKernelThread(at: number, flags: number, exitState: number): boolean {
    // Only O(1) kernels lack the flag; there a kernel thread has no memory of its own and is not exiting.
    if (this.#slots.task.array === undefined) return (flags & PF_KTHREAD) !== 0;
    return (
      exitState === 0 &&
      (flags & PF_EXITING) === 0 &&
      this.#arena.pointer(at, this.#slots.task.mm) === NO_POINTER
    );
  }

  #pid(at: number, slot: Slot): number {
    const pid = this.#arena.number(at, slot);
    if (pid >= 0 && pid <= MAX_PID) return pid;
    throw new DomschedError('guest-inconsistent', `a task has the number ${pid}, which no kernel gives`, {
      pid,
    });
  }

  #parent(at: number): number {
    const { tasks } = this.#tables;
    const parent = this.#arena.pointer(at, this.#slots.task.real_parent);
    const index = parent === NO_POINTER ? -1 : tasks.find(parent);
    if (index < 0) return 0;
    return this.#pid(tasks.position(index, this.#space), this.#slots.task.tgid);
  }

  #cpu(at: number): number {
    const { task, threadInfo } = this.#slots;
    if (task.cpu !== undefined) return this.#arena.number(at, task.cpu);
    if (task.thread_info === undefined || threadInfo.cpu === undefined) return 0;
    const { threadInfos } = this.#tables;
    const index = threadInfos.find(this.#arena.pointer(at, task.thread_info));
    return this.#arena.number(threadInfos.position(index, this.#space), threadInfo.cpu);
  }

  #startTime(at: number): number {
    const { start_time, start_time_ns } = this.#slots.task;
    const first = this.#arena.number(at, start_time);
    return start_time_ns === undefined
      ? first
      : first * NS_PER_SECOND + this.#arena.number(at, start_time_ns);
  }

  /** CPU time of the given threads; unless `single`, of the whole process with its ended threads. */
  #cpuTime(at: number, members: readonly number[], single: boolean): CpuTime {
    const { tasks, signals } = this.#tables;
    const { task, signal, tickNs } = this.#slots;
    const arena = this.#arena;
    const unit = task.timeUnit === 'ticks' ? tickNs : 1;
    let utime = 0;
    let stime = 0;
    let runtime = 0;
    for (const member of members) {
      const from = tasks.position(member, this.#space);
      utime += arena.number(from, task.utime) * unit;
      stime += arena.number(from, task.stime) * unit;
      if (task.sum_exec_runtime !== undefined) runtime += arena.number(from, task.sum_exec_runtime);
    }
    let before = single ? this.#before(at, task.prev_utime, task.prev_stime) : { utime: 0, stime: 0 };
    const shared = arena.pointer(at, task.signal);
    if (!single && shared !== NO_POINTER) {
      const from = signals.position(signals.find(shared), this.#space);
      utime += arena.number(from, signal.utime) * unit;
      stime += arena.number(from, signal.stime) * unit;
      if (signal.sum_sched_runtime !== undefined) runtime += arena.number(from, signal.sum_sched_runtime);
      before = this.#before(from, signal.prev_utime, signal.prev_stime);
    }
    // O(1) kernels show the ticks as they are.
    if (task.timeUnit === 'ticks') return { utimeNs: utime, stimeNs: stime, runtimeNs: runtime };
    return adjustCpuTime(utime, stime, runtime, before);
  }

  /** Time in run queues, where the kernel accounts it in ns. */
  #queued(
    at: number,
    members: readonly number[],
    single: boolean,
  ): Pick<Process, 'queuedNs' | 'queuedSinceNs'> {
    const { run_delay, last_queued, delayUnit } = this.#slots.task;
    if (run_delay === undefined || delayUnit !== 'ns') return {};
    const { tasks } = this.#tables;
    let queuedNs = 0;
    for (const member of members)
      queuedNs += this.#arena.number(tasks.position(member, this.#space), run_delay);
    const since = single && last_queued !== undefined ? this.#arena.number(at, last_queued) : 0;
    return { queuedNs, ...(since > 0 && { queuedSinceNs: since }) };
  }

  #before(at: number, utime: Slot | undefined, stime: Slot | undefined): { utime: number; stime: number } {
    if (utime === undefined || stime === undefined) return { utime: 0, stime: 0 };
    return { utime: this.#arena.number(at, utime), stime: this.#arena.number(at, stime) };
  }

  #wrong(what: string, index: number): DomschedError {
    const address = pointerAddress(this.#tables.tasks.pointers[index] as KernelPointer);
    return new DomschedError('guest-inconsistent', `${what} (task_struct at ${address.toString(16)})`, {
      address,
      fact: what,
    });
  }
}
