import { cachedKernels } from '../../../kernels/cache.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { FrameImage } from '../../../runtime/hypervisor/fake/image.ts';
import { FRAME_SIZE } from '../../../runtime/hypervisor/frame.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { Scalar } from '../../../runtime/layout/types.ts';
import type { LayoutView } from '../../../runtime/layout/view.ts';
import type { SymbolName } from '../../../runtime/members/symbols.ts';
import { PageTables, PRESENT, USER, WRITABLE } from '../memory/page-tables.ts';

const KERNEL_MAP = 0xffff_ffff_8000_0000n;
const LARGE_PAGE = 0x20_0000;

/** Frames: where things are in the guest's physical memory. */
const TABLES_AT = 0x2_0000;
const PERCPU_AT = 0x1_0000 * FRAME_SIZE;
const HEAP_AT = 0x3_0000 * FRAME_SIZE;
const RAM_FRAMES = 0x8_0000;

export interface SyntheticTask {
  pid: number;
  comm: string;
  /** CPU that it is on or was on. */
  cpu: number;
  /** `running` at most once per CPU. */
  state: 'running' | 'ready' | 'sleeping' | 'zombie' | 'stopped';
  nice?: number;
  ppid?: number;
  tgid?: number;
  kernel?: boolean;
  /** Priority of a real-time task, 0 to 98 in the queue's own order. */
  realtime?: number;
  /** Fair tasks: queued in a task group instead of at the top. */
  group?: boolean;
  utime?: number;
  stime?: number;
  runtime?: number;
}

export interface SyntheticOptions {
  /** Folder of the generated layout. */
  kernel: string;
  cpus?: number;
  tasks?: readonly SyntheticTask[];
  slide?: bigint;
  /** Physical address of the image's start. */
  load?: number;
  levels?: 4 | 5;
  name?: string;
  /** Another guest's memory, where this kernel is beside the other: all of its frames are so many further on. */
  beside?: { readonly image: FrameImage; readonly frames: number };
  /** Instead of the kernel's own layout. */
  layout?: LayoutView;
}

const known = await knownKernels();

/**
 * A kernel of the registry by its scheduler: a build whose file is here, too, else whichever there is. The archive has
 * another one than the committed registry from time to time.
 */
function kernelWith(scheduler: string, flavour: RegExp): string {
  const all = known.filter(
    ({ schedulers, release }) => schedulers.includes(scheduler) && flavour.test(release),
  );
  const here = new Set(cachedKernels().map(({ release }) => release));
  const found = all.find(({ release }) => here.has(release)) ?? all[0];
  if (found === undefined) throw new Error(`no generated layout has the scheduler ${scheduler}`);
  return found.folder;
}

export const O1_KERNEL = kernelWith('o1', /^2\.6\.16\.33$/);
export const CFS_KERNEL = kernelWith('cfs', /-cloud-/);
export const EEVDF_KERNEL = kernelWith('eevdf', /-cloud-/);
/** Of what synthetic guests are made. */
export const SYNTHETIC_KERNELS: readonly string[] = [O1_KERNEL, CFS_KERNEL, EEVDF_KERNEL];

export function knownKernel(folder: string) {
  const found = known.find((kernel) => kernel.folder === folder);
  if (found === undefined) throw new Error(`the layout of ${folder} is not generated`);
  return found;
}

/**
 * A guest made in memory, by a kernel's layout: page tables, IDT, per-CPU areas, tasks, run queues. Nothing here is
 * shared with the code under test but the layout itself.
 */
export class SyntheticGuest {
  readonly layout: LayoutView;
  readonly domain: FakeDomain;
  readonly image: FrameImage;
  readonly tasks = new Map<number, bigint>();
  readonly queues: bigint[] = [];
  /** Every object of the kernel that was made, with its structure. */
  readonly objects: { readonly address: bigint; readonly struct: string }[] = [];
  readonly initTask: bigint;
  readonly tables: PageTables;
  readonly slide: bigint;
  readonly physBase: bigint;
  readonly directMap: bigint;
  readonly #o1: boolean;
  readonly #base: number;
  #heap: number;
  #areas: bigint[] = [];

  private constructor(layout: LayoutView, options: SyntheticOptions) {
    this.layout = layout;
    this.#o1 = layout.has('rq', 'active');
    this.slide = this.#o1 ? 0n : (options.slide ?? 0x1a00_0000n);
    const text = layout.requireSymbol('_text');
    const load = this.#o1
      ? Number(text - KERNEL_MAP)
      : (options.load ?? 0x400_0000) + (options.beside?.frames ?? 0) * FRAME_SIZE;
    this.physBase = BigInt(load) - (text - KERNEL_MAP) - this.slide;
    const levels = options.levels ?? 4;
    this.directMap = this.#o1
      ? 0xffff_8100_0000_0000n
      : levels === 5
        ? 0xff11_0000_0000_0000n
        : 0xffff_8880_0000_0000n;
    this.#base = (options.beside?.frames ?? 0) * FRAME_SIZE;
    this.#heap = this.#base + HEAP_AT;
    this.image = options.beside?.image ?? new FrameImage();
    this.tables = new PageTables(this.image, this.#base / FRAME_SIZE + TABLES_AT, levels);
    this.#map(text);
    const idt = this.alloc(4096);
    this.domain = new FakeDomain({
      ...(options.name === undefined ? {} : { name: options.name }),
      ram: [{ first: 0, count: RAM_FRAMES }],
      image: this.image,
      vcpus: Array.from({ length: options.cpus ?? 2 }, () => ({
        cr3: BigInt(this.tables.root),
        cr4: levels === 5 ? 0x16b0n : 0x6b0n,
        idtBase: idt,
      })),
    });
    this.domain.recorder.recording = false;
    this.#identity(idt);
    this.#percpu(options.cpus ?? 2);
    this.initTask = this.object('task_struct', this.symbol('init_task'));
    this.#populate(options.tasks ?? defaultTasks());
  }

  static async make(options: SyntheticOptions): Promise<SyntheticGuest> {
    return new SyntheticGuest(options.layout ?? (await knownKernel(options.kernel).load()), options);
  }

  symbol(name: SymbolName): bigint {
    return this.layout.requireSymbol(name) + this.slide;
  }

  /** Physical address, for those who want to spoil memory. */
  physical(address: bigint): number {
    if (address >= KERNEL_MAP) return Number(address - KERNEL_MAP + this.physBase);
    return Number(address - this.directMap);
  }

  /** Takes zeroed memory from the direct map. */
  alloc(size: number): bigint {
    const at = this.#heap;
    this.#heap += Math.ceil(size / 64) * 64;
    return this.directMap + BigInt(at);
  }

  /** Makes a zeroed structure, or says that one is at an address. */
  object(struct: string, address = this.alloc(this.layout.requireStruct(struct).size)): bigint {
    this.objects.push({ address, struct });
    return address;
  }

  offset(struct: string, path: string): bigint {
    return BigInt(this.layout.field(struct, path).offset);
  }

  put(address: bigint, struct: string, path: string, value: Scalar): void {
    const field = this.layout.field(struct, path);
    const { offset, size } = field.word;
    const old = this.image.load(this.physical(address) + offset, size);
    this.image.store(this.physical(address) + offset, field.encode(value, old));
  }

  word(address: bigint, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
    this.image.store(this.physical(address), bytes);
  }

  text(address: bigint, value: string): void {
    this.image.store(this.physical(address), Buffer.from(`${value}\0`, 'latin1'));
  }

  /** Links nodes to a ring, in order; the first is its head. */
  ring(...nodes: readonly bigint[]): void {
    for (const [i, node] of nodes.entries()) {
      this.word(node, nodes[(i + 1) % nodes.length]!);
      this.word(node + 8n, nodes[(i + nodes.length - 1) % nodes.length]!);
    }
  }

  #map(text: bigint): void {
    const end = this.layout.symbol('_end') ?? text + 0x300_0000n;
    const first = this.#o1 ? KERNEL_MAP : text + this.slide;
    for (let address = first; address < end + this.slide; address += BigInt(LARGE_PAGE)) {
      this.tables.map(address, Number(address - KERNEL_MAP + this.physBase) / FRAME_SIZE, 2);
    }
    for (let frame = 0; frame < RAM_FRAMES; frame += LARGE_PAGE / FRAME_SIZE) {
      this.tables.map(this.directMap + BigInt(frame * FRAME_SIZE), frame, 2, PRESENT | WRITABLE | USER);
    }
    // The kernel's own topmost table is in its image.
    const own = this.layout.symbol('init_top_pgt') ?? this.layout.requireSymbol('init_level4_pgt');
    this.image.store(this.physical(own + this.slide), this.image.load(this.tables.root, FRAME_SIZE));
  }

  #identity(idt: bigint): void {
    const { banner, buildId } = this.layout.kernel;
    this.image.store(this.physical(this.symbol('linux_banner')), Buffer.from(`${banner}\n\0`, 'latin1'));
    const handler = this.layout.symbol('asm_exc_divide_error') ?? this.layout.symbol('divide_error');
    if (handler !== undefined) {
      const address = handler + this.slide;
      this.word(
        idt,
        (address & 0xffffn) | (0x10n << 16n) | (0x8e00n << 32n) | (((address >> 16n) & 0xffffn) << 48n),
      );
      this.word(idt + 8n, address >> 32n);
    }
    if (this.layout.symbol('phys_base') !== undefined) this.word(this.symbol('phys_base'), this.physBase);
    if (buildId !== null && this.layout.symbol('__start_notes') !== undefined) {
      const id = Buffer.from(buildId, 'hex');
      const note = Buffer.alloc(16 + id.length);
      note.writeUInt32LE(4, 0);
      note.writeUInt32LE(id.length, 4);
      note.writeUInt32LE(3, 8);
      note.write('GNU\0', 12, 'latin1');
      id.copy(note, 16);
      this.image.store(this.physical(this.symbol('__start_notes')), note);
    }
  }

  #percpu(cpus: number): void {
    for (let cpu = 0; cpu < cpus; cpu++) {
      const at = this.directMap + BigInt(this.#base + PERCPU_AT + cpu * LARGE_PAGE);
      if (this.#o1) {
        const linked = this.layout.requireSymbol('per_cpu__runqueues');
        const pda = this.object('x8664_pda');
        this.put(pda, 'x8664_pda', 'cpunumber', cpu);
        this.put(pda, 'x8664_pda', 'data_offset', BigInt.asUintN(64, at - linked));
        this.word(this.symbol('_cpu_pda') + BigInt(8 * cpu), pda);
        this.#areas.push(pda);
        this.queues.push(this.object('rq', at));
      } else if (this.layout.symbol('__per_cpu_offset') === undefined) {
        // A kernel for one CPU.
        this.queues.push(this.object('rq', this.symbol('runqueues')));
        this.#weights();
        return;
      } else {
        this.word(this.symbol('__per_cpu_offset') + BigInt(8 * cpu), at);
        this.queues.push(this.object('rq', at + this.layout.requireSymbol('runqueues')));
      }
    }
    if (this.#o1) {
      this.word(this.symbol('tick_nsec'), 4_000_000n);
      this.#o1Code();
      return;
    }
    this.#weights();
    this.image.store(this.physical(this.symbol('nr_cpu_ids')), Buffer.from(Uint32Array.of(cpus).buffer));
    this.word(this.symbol('__cpu_online_mask'), (1n << BigInt(cpus)) - 1n);
  }

  /** What the code of a kernel with O(1) queues shows. */
  #o1Code(): void {
    const write = (name: SymbolName, code: readonly number[]) =>
      this.image.store(this.physical(this.symbol(name)), Uint8Array.from(code));
    // lock btrl $3,flags(%rax); ret: TIF_NEED_RESCHED
    write('schedule', [0xf0, 0x0f, 0xba, 0x70, Number(this.offset('thread_info', 'flags')), 3, 0xc3]);
    // orq $4,flags(%rbp); ret: PF_EXITING
    write('do_exit', [0x48, 0x83, 0x4d, Number(this.offset('task_struct', 'flags')), 4, 0xc3]);
    // mov $0xf,%esi; jmp try_to_wake_up
    const jump = Buffer.alloc(4);
    jump.writeInt32LE(Number(this.symbol('try_to_wake_up') - this.symbol('wake_up') - 10n));
    write('wake_up', [0xbe, 0xf, 0, 0, 0, 0xe9, ...jump]);
  }

  /** The weight of nice 0, of the root group, and how averages fade (kernel/sched/core.c, sched-pelt.h). */
  #weights(): void {
    this.word(this.symbol('sched_prio_to_weight') + 80n, 1024n);
    if (this.layout.has('task_group', 'shares')) {
      const shares = this.symbol('root_task_group') + this.offset('task_group', 'shares');
      this.word(shares, 1024n << 10n);
    }
    const factors = Uint32Array.from({ length: 32 }, (_, n) => (2 ** 32 - 1) * 0.5 ** (n / 32));
    const table = this.physical(this.symbol('runnable_avg_yN_inv'));
    this.image.store(table, new Uint8Array(factors.buffer));
  }

  #populate(tasks: readonly SyntheticTask[]): void {
    const idles = this.queues.map((_, cpu) => (cpu === 0 ? this.initTask : this.object('task_struct')));
    for (const [cpu, idle] of idles.entries()) {
      // kernel/sched/core.c, init_idle(): CONFIG_SMP appends the number.
      const isAlone = this.layout.symbol('__per_cpu_offset') === undefined;
      const comm = this.#o1 || isAlone ? 'swapper' : `swapper/${cpu}`;
      this.#task(idle, { pid: 0, comm, cpu, state: 'ready', kernel: true }, idle, idle);
    }
    for (const task of tasks) this.tasks.set(task.pid, this.object('task_struct'));
    const leaders = tasks.filter(({ pid, tgid }) => tgid === undefined || tgid === pid);
    for (const task of tasks) {
      const parent = this.tasks.get(task.ppid ?? 0) ?? this.initTask;
      const leader = this.tasks.get(task.tgid ?? task.pid)!;
      this.#task(this.tasks.get(task.pid)!, task, parent, leader);
    }
    const node = this.offset('task_struct', 'tasks');
    this.ring(this.initTask + node, ...leaders.map(({ pid }) => this.tasks.get(pid)! + node));
    for (const leader of leaders) {
      const members = tasks.filter(({ pid, tgid }) => (tgid ?? pid) === leader.pid);
      this.#process(members.map(({ pid }) => this.tasks.get(pid)!));
    }
    for (const [cpu, rq] of this.queues.entries()) this.#queue(cpu, rq, idles[cpu]!, tasks);
  }

  #task(address: bigint, task: SyntheticTask, parent: bigint, leader: bigint): void {
    const put = (path: string, value: Scalar) => this.put(address, 'task_struct', path, value);
    const has = (path: string) => this.layout.has('task_struct', path);
    const states = { running: 0, ready: 0, sleeping: 1, zombie: 0, stopped: this.#o1 ? 4 : 0x104 };
    const state = states[task.state];
    if (has('__state')) put('__state', state);
    else put('state', BigInt(state));
    const exit = task.state === 'zombie' ? (this.#o1 ? 16 : 32) : 0;
    put('exit_state', this.#o1 ? BigInt(exit) : exit);
    const flags = (task.kernel && !this.#o1 ? 0x20_0000 : 0) | (exit === 0 ? 0 : 4);
    put('flags', this.#o1 ? BigInt(flags) : flags);
    put('pid', task.pid);
    put('tgid', task.tgid ?? task.pid);
    put('static_prio', 120 + (task.nice ?? 0));
    put('prio', task.realtime ?? 120 + (task.nice ?? 0));
    put('real_parent', parent);
    put('group_leader', leader);
    if (!task.kernel && exit === 0) put('mm', this.directMap + 0x1000n);
    put('utime', BigInt(task.utime ?? 0));
    put('stime', BigInt(task.stime ?? 0));
    put(has('sched_time') ? 'sched_time' : 'se.sum_exec_runtime', BigInt(task.runtime ?? 0));
    this.text(address + this.offset('task_struct', 'comm'), task.comm.slice(0, 15));
    for (const list of ['sibling', 'tasks']) this.ring(address + this.offset('task_struct', list));
    if (this.#o1) {
      const info = this.object('thread_info');
      this.put(info, 'thread_info', 'task', address);
      this.put(info, 'thread_info', 'cpu', task.cpu);
      put('thread_info', info);
    } else {
      const cpu = ['thread_info.cpu', 'cpu'].find(has);
      if (cpu !== undefined) put(cpu, task.cpu);
      const on = task.state === 'running' || task.state === 'ready' ? 1 : 0;
      if (task.pid !== 0) put('on_rq', on);
      put(has('start_boottime') ? 'start_boottime' : 'start_time', BigInt(task.pid) * 1_000_000_000n);
    }
  }

  #process(members: readonly bigint[]): void {
    const signal = this.object('signal_struct');
    for (const task of members) this.put(task, 'task_struct', 'signal', signal);
    if (this.#o1) {
      const ids = this.layout.field('task_struct', 'pids');
      const node = BigInt(ids.offset + ids.stride!) + this.offset('pid', 'pid_list');
      this.ring(...members.map((task) => task + node));
      return;
    }
    this.put(signal, 'signal_struct', 'nr_threads', members.length);
    const node = this.offset('task_struct', 'thread_node');
    this.ring(signal + this.offset('signal_struct', 'thread_head'), ...members.map((task) => task + node));
  }

  #queue(cpu: number, rq: bigint, idle: bigint, tasks: readonly SyntheticTask[]): void {
    const here = tasks.filter(
      (task) => task.cpu === cpu && (task.state === 'running' || task.state === 'ready'),
    );
    const running = here.find(({ state }) => state === 'running');
    const curr = running === undefined ? idle : this.tasks.get(running.pid)!;
    this.put(rq, 'rq', 'curr', curr);
    this.put(rq, 'rq', 'idle', idle);
    if (this.#o1) {
      this.put(this.#areas[cpu]!, 'x8664_pda', 'pcurrent', curr);
      this.#o1Queue(rq, here);
      return;
    }
    if (this.layout.has('rq', 'cpu')) this.put(rq, 'rq', 'cpu', cpu);
    this.put(rq, 'rq', 'nr_running', here.length);
    const realtime = here.filter((task) => task.realtime !== undefined);
    this.put(rq, 'rq', 'rt.rt_nr_running', realtime.length);
    const lists = this.layout.field('rq', 'rt.active.queue');
    for (let prio = 0; prio < lists.length!; prio++) {
      const queued = realtime.filter((task) => task.realtime === prio);
      const node = this.offset('task_struct', 'rt.run_list');
      this.ring(rq + BigInt(lists.at(prio)), ...queued.map(({ pid }) => this.tasks.get(pid)! + node));
    }
    const fair = here.filter((task) => task.realtime === undefined);
    this.#fairQueue(rq, running?.realtime === undefined ? running : undefined, fair);
  }

  #o1Queue(rq: bigint, here: readonly SyntheticTask[]): void {
    const arrays = rq + this.offset('rq', 'arrays');
    const size = BigInt(this.layout.requireStruct('prio_array').size);
    this.put(rq, 'rq', 'active', arrays);
    this.put(rq, 'rq', 'expired', arrays + size);
    this.put(rq, 'rq', 'nr_running', BigInt(here.length));
    if (this.layout.has('rq', 'lock.raw_lock.slock')) this.put(rq, 'rq', 'lock.raw_lock.slock', 1);
    const lists = this.layout.field('prio_array', 'queue');
    for (const array of [arrays, arrays + size]) {
      const bitmap = [0n, 0n, 1n << 12n];
      const mine = array === arrays ? here : [];
      this.put(array, 'prio_array', 'nr_active', mine.length);
      for (let prio = 0; prio < lists.length!; prio++) {
        const queued = mine.filter((task) => 120 + (task.nice ?? 0) === prio);
        if (queued.length > 0) bitmap[prio >> 6]! |= 1n << BigInt(prio & 63);
        const node = this.offset('task_struct', 'run_list');
        this.ring(array + BigInt(lists.at(prio)), ...queued.map(({ pid }) => this.tasks.get(pid)! + node));
        for (const { pid } of queued) this.put(this.tasks.get(pid)!, 'task_struct', 'array', array);
      }
      for (const [i, word] of bitmap.entries()) {
        this.word(array + this.offset('prio_array', 'bitmap') + BigInt(8 * i), word);
      }
    }
  }

  #fairQueue(rq: bigint, running: SyntheticTask | undefined, fair: readonly SyntheticTask[]): void {
    const top = rq + this.offset('rq', 'cfs');
    const entityOf = ({ pid }: SyntheticTask) => this.tasks.get(pid)! + this.offset('task_struct', 'se');
    const grouped = fair.filter((task) => task.group);
    const waiting = fair.filter((task) => !task.group && task !== running).map(entityOf);
    if (grouped.length > 0) {
      const group = this.object('cfs_rq');
      const entity = this.object('sched_entity');
      this.put(entity, 'sched_entity', 'my_q', group);
      const runs = running?.group === true;
      const inside = grouped.filter((task) => task !== running).map(entityOf);
      this.#fillFair(group, rq, inside, runs ? entityOf(running) : undefined, grouped.length);
      if (!runs) waiting.push(entity);
      this.#fillFair(top, rq, waiting, runs ? entity : running && entityOf(running), fair.length);
      return;
    }
    this.#fillFair(top, rq, waiting, running && entityOf(running), fair.length);
  }

  #fillFair(
    cfs: bigint,
    rq: bigint,
    waiting: readonly bigint[],
    curr: bigint | undefined,
    tasks: number,
  ): void {
    const put = (path: string, value: Scalar) => this.put(cfs, 'cfs_rq', path, value);
    const has = (path: string) => this.layout.has('cfs_rq', path);
    put('rq', rq);
    put(has('nr_queued') ? 'nr_queued' : 'nr_running', waiting.length + (curr === undefined ? 0 : 1));
    put(has('h_nr_queued') ? 'h_nr_queued' : 'h_nr_running', tasks);
    for (const [i, entity] of [...waiting, ...(curr === undefined ? [] : [curr])].entries()) {
      this.put(entity, 'sched_entity', 'cfs_rq', cfs);
      this.put(entity, 'sched_entity', 'on_rq', 1);
      this.put(entity, 'sched_entity', 'vruntime', BigInt(1000 * (i + 1)));
      if (this.layout.has('sched_entity', 'deadline')) {
        this.put(entity, 'sched_entity', 'deadline', BigInt(1000 * (i + 1)));
      }
    }
    put('tasks_timeline.rb_root.rb_node', this.#tree(waiting, 0n));
    put(
      'tasks_timeline.rb_leftmost',
      waiting.length > 0 ? waiting[0]! + this.offset('sched_entity', 'run_node') : 0n,
    );
    put('curr', curr ?? 0n);
  }

  /** A balanced tree over entities in order. @returns its root's node, 0 when there is none */
  #tree(entities: readonly bigint[], parent: bigint): bigint {
    if (entities.length === 0) return 0n;
    const middle = entities.length >> 1;
    const entity = entities[middle]!;
    const node = entity + this.offset('sched_entity', 'run_node');
    this.put(entity, 'sched_entity', 'run_node.__rb_parent_color', parent | 1n);
    this.put(entity, 'sched_entity', 'run_node.rb_left', this.#tree(entities.slice(0, middle), node));
    this.put(entity, 'sched_entity', 'run_node.rb_right', this.#tree(entities.slice(middle + 1), node));
    return node;
  }
}

/** A small guest with a bit of everything. */
export function defaultTasks(): SyntheticTask[] {
  return [
    { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' },
    { pid: 2, comm: 'kthreadd', cpu: 0, state: 'sleeping', kernel: true },
    { pid: 10, comm: 'web', cpu: 0, state: 'running', ppid: 1, nice: -5 },
    { pid: 11, comm: 'db', cpu: 0, state: 'ready', ppid: 1 },
    { pid: 12, comm: 'backup', cpu: 0, state: 'ready', ppid: 1, nice: 19 },
    { pid: 13, comm: 'tar', cpu: 0, state: 'ready', ppid: 12, nice: 19 },
    { pid: 20, comm: 'mail', cpu: 1, state: 'ready', ppid: 1 },
    { pid: 30, comm: 'gone', cpu: 1, state: 'zombie', ppid: 1 },
    { pid: 31, comm: 'paused', cpu: 1, state: 'stopped', ppid: 1 },
    { pid: 40, comm: 'pool', cpu: 1, state: 'running', ppid: 1 },
    { pid: 41, comm: 'pool', cpu: 1, state: 'ready', ppid: 1, tgid: 40 },
    { pid: 42, comm: 'pool', cpu: 0, state: 'sleeping', ppid: 1, tgid: 40 },
  ];
}

/** Two boots of one kernel in one memory, which differ by the name of process 11: `before` and `after`. */
export async function twoBoots(kernel: string, slide?: bigint) {
  const named = (comm: string) => defaultTasks().map((task) => (task.pid === 11 ? { ...task, comm } : task));
  const first = await SyntheticGuest.make({ kernel, tasks: named('before') });
  const second = await SyntheticGuest.make({
    kernel,
    tasks: named('after'),
    beside: { image: first.image, frames: 0x4_0000 },
    ...(slide !== undefined && { slide }),
  });
  return { first, second };
}
