import { DomschedError } from '../error.ts';
import type { Domain } from '../hypervisor/types.ts';
import type { Field } from '../layout/field.ts';
import { optionalField, requiredField, sizeOf } from '../layout/members.ts';
import type { LayoutView } from '../layout/view.ts';
import type { MemberName } from '../members/members.ts';
import { advance, formatAddress, type GuestVirtual } from '../memory/address.ts';
import { AddressSet } from '../memory/address-map.ts';
import { ReadBatch } from '../memory/read-batch.ts';
import type { AddressSpace } from '../memory/types.ts';
import { isFault } from '../memory/walker.ts';
import { readMember, readPointer } from './fields.ts';
import type { IdentifiedKernel } from './identify/types.ts';
import { requireSymbolAddress } from './kernel.ts';
import { type GuestCpu, percpuVariable } from './percpu.ts';
import type { Process } from './process.ts';
import type { RunQueue } from './run-queue.ts';
import { printableBytes } from './text.ts';

/** A fact that must hold if the layout is the guest's. */
export interface Fact {
  readonly name: string;
  readonly holds: boolean;
  /** The value found. */
  readonly found: string;
}

/** Static priorities (Linux include/linux/sched/prio.h: MAX_RT_PRIO to MAX_PRIO - 1; the same in O(1) kernels). */
const LOWEST_STATIC_PRIO = 100;
const HIGHEST_STATIC_PRIO = 139;
const NICE_0_PRIO = 120;
/** Highest policy that kernels have had (include/uapi/linux/sched.h, SCHED_NORMAL to SCHED_EXT). */
const HIGHEST_POLICY = 7;
const TORN = '; or the guest ran while the image was taken: take one of a domain that is paused';
const QUEUES_AND_PROCESSES = 'run queues and processes are consistent';
/** Pauses to try when no look at a running guest was consistent. */
const MAX_PAUSES = 8;

/** What a proof needs from a guest. */
export interface ProvableGuest {
  readonly domain: Domain;
  readonly kernel: IdentifiedKernel;
  readonly layout: LayoutView;
  readonly space: AddressSpace;
  readonly cpus: readonly GuestCpu[];
  /** Results of the proof, see {@link Guest}. */
  torn: string | undefined;
  queuesUnknown: string | undefined;
  snapshot(options: { threads: true }): {
    readonly processes: readonly Process[];
    readonly runQueues: readonly RunQueue[];
  };
  processesAlone(options: { threads: true }): { readonly processes: readonly Process[] };
}

/**
 * Proves a layout on the guest that it is meant for, by facts that every kernel keeps and a wrong offset breaks. Facts
 * that never change are read once. Run queues and the list of processes are read until a look is consistent, in the end
 * with the domain paused.
 *
 * @returns all facts
 * @throws DomschedError `layout-disproved` with the facts, naming the first that does not hold; `guest-booting` when
 *   the guest has no process yet
 */
export async function prove(guest: ProvableGuest): Promise<readonly Fact[]> {
  const facts: Fact[] = [];
  const check = (name: string, holds: boolean, found: string) => facts.push({ name, holds, found });
  const initTask = requireSymbolAddress(guest.kernel, 'init_task');
  initTaskFacts(guest, initTask, check);
  for (const [index, { cpu }] of guest.cpus.entries()) {
    const rq = percpuVariable(guest.kernel, 'runqueues', guest.cpus[index]!);
    queueFacts(guest, cpu, rq, check);
  }
  areaFacts(guest, check);
  refuse(guest, facts);
  await movingFacts(guest, initTask, facts);
  refuse(guest, facts, guest.domain.pause === undefined ? TORN : '');
  return facts;
}

type AddFact = (name: string, holds: boolean, found: string) => void;

function initTaskFacts(guest: ProvableGuest, address: GuestVirtual, check: AddFact): void {
  const task = new TaskCopy(guest, address);
  const comm = task.comm();
  check(
    'init_task is process 0',
    task.number('pid') === 0 && task.number('tgid') === 0,
    `pid ${task.number('pid')}`,
  );
  // Old kernels name every idle task swapper; later ones append its CPU (kernel/sched/core.c, init_idle).
  check('init_task is the swapper', comm === 'swapper' || comm === 'swapper/0', `comm "${comm}"`);
  check(
    'init_task has nice 0',
    task.number('static_prio') === NICE_0_PRIO,
    `static_prio ${task.number('static_prio')}`,
  );
  check(
    'init_task has no memory of its own',
    task.pointer('mm') === 0n,
    `mm ${formatAddress(task.pointer('mm'))}`,
  );
  // Beside it are the count of references and the flags: in random order (CONFIG_RANDSTRUCT) they change places.
  check('init_task has no tracer', task.number('ptrace') === 0, `ptrace ${task.number('ptrace')}`);
  const parent = task.pointer('real_parent');
  check('init_task is its own parent', parent === address, `real_parent ${formatAddress(parent)}`);
  const leader = task.pointer('group_leader');
  check('init_task leads its own group', leader === address, `group_leader ${formatAddress(leader)}`);
  linkFact(guest, task, address, 'sibling', check);
}

/** @param list a list of `init_task`: `sibling` never changes, `tasks` does whenever a process begins or ends */
function linkFact(
  guest: ProvableGuest,
  task: TaskCopy,
  address: GuestVirtual,
  list: 'tasks' | 'sibling',
  check: AddFact,
): void {
  const node = advance(address, task.offset(list));
  const next = task.link(list, 'next');
  const previous = task.link(list, 'prev');
  const link = (node: GuestVirtual, path: 'next' | 'prev') =>
    tryPointer(guest.space, node, requiredField(guest.layout, 'list_head', path));
  const back = link(next, 'prev');
  const forward = link(previous, 'next');
  check(
    `init_task.${list} links both ways`,
    back === node && forward === node,
    `next ${formatAddress(next)}`,
  );
}

function queueFacts(guest: ProvableGuest, cpu: number, address: GuestVirtual, check: AddFact): void {
  const { layout, space } = guest;
  const number = optionalField(layout, 'rq', 'cpu');
  if (number !== undefined) {
    const found = readMember(space, address, number);
    check(`run queue ${cpu} has the number of its CPU`, found === BigInt(cpu), `rq.cpu ${found}`);
  }
  const idle = tryPointer(space, address, requiredField(layout, 'rq', 'idle'));
  const task = tryTask(guest, idle);
  const comm = task?.comm() ?? '';
  check(
    `run queue ${cpu} has an idle task`,
    task !== undefined && task.number('pid') === 0 && /^swapper(\/[0-9]+)?$/.test(comm),
    task === undefined ? `idle ${formatAddress(idle)}` : `pid ${task.number('pid')}, comm "${comm}"`,
  );
  if (comm.includes('/'))
    check(`the idle task of CPU ${cpu} says so`, comm === `swapper/${cpu}`, `comm "${comm}"`);
  const ownerOf = optionalField(layout, 'thread_info', 'task');
  if (task !== undefined && ownerOf !== undefined) {
    // Until 4.9 the thread_info is outside the task and points back to it.
    const owner = tryPointer(space, task.pointer('thread_info'), ownerOf);
    check(
      `the thread_info of CPU ${cpu}'s idle task points back`,
      owner === idle,
      `task ${formatAddress(owner)}`,
    );
  }
}

/** The per-CPU areas must be at least the size of a run queue apart. */
function areaFacts(guest: ProvableGuest, check: AddFact): void {
  const { layout, cpus } = guest;
  const size = BigInt(sizeOf(layout, 'rq'));
  const areas = cpus.map(({ area }) => BigInt.asIntN(64, area)).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  let apart = true;
  for (let i = 1; i < areas.length; i++) if (areas[i]! - areas[i - 1]! < size) apart = false;
  check('per-CPU areas do not overlap', apart, `${cpus.length} areas`);
}

/** Facts about data that the guest changes all the time. */
async function movingFacts(guest: ProvableGuest, initTask: GuestVirtual, facts: Fact[]): Promise<void> {
  const constant = facts.length;
  const attempt = () => {
    facts.length = constant;
    const check: AddFact = (name, holds, found) => facts.push({ name, holds, found });
    linkFact(guest, new TaskCopy(guest, initTask), initTask, 'tasks', check);
    // A list that leads elsewhere is not walked.
    if (!facts[constant]!.holds) return false;
    if (guest.queuesUnknown !== undefined) {
      processFacts(guest, check);
      return facts.every(({ holds }) => holds);
    }
    try {
      snapshotFacts(guest, initTask, check);
    } catch (error) {
      if (!isContradiction(error)) throw error;
      check(QUEUES_AND_PROCESSES, false, error.message);
    }
    return facts.every(({ holds }) => holds);
  };
  /** The contradiction in the run queues, if nothing else is wrong. */
  const contradiction = () => facts.find(({ name, holds }) => name === QUEUES_AND_PROCESSES && !holds);
  if (attempt()) return;
  if (guest.domain.pause === undefined) {
    // An image shows nothing more. One taken while the guest ran has torn queues, but its processes are still there.
    const torn = contradiction();
    if (torn === undefined) return;
    // Already seen: the list of tasks links both ways.
    facts.length = constant + 1;
    processFacts(guest, (name, holds, found) => facts.push({ name, holds, found }));
    if (facts.every(({ holds }) => holds)) guest.torn = torn.found;
    else facts.push(torn);
    return;
  }
  for (let i = 0; i < MAX_PAUSES; i++) {
    // Each pause meets the guest at another point, which may be in the middle of a change of its queues.
    await using _pause = await guest.domain.pause.acquire('look');
    if (attempt()) return;
    const wrong = contradiction();
    if (i < MAX_PAUSES - 1 || wrong === undefined) continue;
    // Never right: the scheduler keeps its tasks elsewhere. That disproves nothing about the list of processes.
    guest.queuesUnknown = wrong.found;
    if (!attempt()) facts.push(wrong);
  }
}

function snapshotFacts(guest: ProvableGuest, initTask: GuestVirtual, check: AddFact): void {
  const { processes, runQueues } = guest.snapshot({ threads: true });
  check(QUEUES_AND_PROCESSES, true, `${processes.length} tasks, ${runQueues.length} run queues`);
  taskFacts(processes, check);
  const addresses = new AddressSet(processes.map(({ address }) => address));
  for (const { cpu, curr, idle, tasks } of runQueues) {
    const listed = curr === idle || addresses.has(curr);
    check(`the task on CPU ${cpu} is a task`, listed, formatAddress(curr));
    const strays = tasks.filter(({ address }) => !addresses.has(address) && address !== initTask);
    check(`the tasks in run queue ${cpu} are tasks`, strays.length === 0, `${tasks.length} tasks`);
  }
}

/** The facts left to prove when the run queues cannot be read. */
function processFacts(guest: ProvableGuest, check: AddFact): void {
  try {
    const { processes } = guest.processesAlone({ threads: true });
    check('processes are consistent', true, `${processes.length} tasks`);
    taskFacts(processes, check);
    if (guest.torn === undefined && guest.queuesUnknown !== undefined) currentFacts(guest, processes, check);
  } catch (error) {
    if (!isContradiction(error)) throw error;
    check('processes are consistent', false, error.message);
  }
}

/** Checks the one fact about run queues that every kernel has: which task each CPU runs. */
function currentFacts(guest: ProvableGuest, processes: readonly Process[], check: AddFact): void {
  const [currOf, idleOf] = (['curr', 'idle'] as const).map((name) => requiredField(guest.layout, 'rq', name));
  const addresses = new AddressSet(processes.map(({ address }) => address));
  for (const cpu of guest.cpus) {
    const queue = percpuVariable(guest.kernel, 'runqueues', cpu);
    const curr = tryPointer(guest.space, queue, currOf!);
    const idle = tryPointer(guest.space, queue, idleOf!);
    check(`the task on CPU ${cpu.cpu} is a task`, curr === idle || addresses.has(curr), formatAddress(curr));
  }
}

function taskFacts(processes: readonly Process[], check: AddFact): void {
  const init = processes.find(({ pid }) => pid === 1);
  check(
    'process 1 is there, a child of process 0',
    init !== undefined && init.ppid === 0,
    `ppid ${init?.ppid}`,
  );
  const pids = new AddressSet(processes.map(({ pid }) => BigInt(pid)));
  check('no two tasks have one pid', pids.size === processes.length, `${pids.size} pids`);
  const odd = processes.find(
    ({ nice, policy, pid }) =>
      pid <= 0 ||
      nice + NICE_0_PRIO < LOWEST_STATIC_PRIO ||
      nice + NICE_0_PRIO > HIGHEST_STATIC_PRIO ||
      (policy.startsWith('policy-') && Number(policy.slice(7)) > HIGHEST_POLICY),
  );
  check(
    'every task has a pid, a priority and a policy',
    odd === undefined,
    odd === undefined ? 'yes' : odd.comm,
  );
}

function isContradiction(error: unknown): error is DomschedError {
  return error instanceof DomschedError && ['guest-inconsistent', 'walk-unbounded'].includes(error.code);
}

/** @param other what else may be wrong, and what to do about it */
function refuse(guest: ProvableGuest, facts: readonly Fact[], other = ''): void {
  const wrong = facts.find(({ holds }) => !holds);
  if (wrong === undefined) return;
  const { name } = guest.domain.identity;
  if (hasNoProcesses(guest, facts)) {
    throw new DomschedError(
      'guest-booting',
      `${name}: Linux ${guest.kernel.release} is still booting: it has no process yet; try again in a moment`,
      { domain: name, release: guest.kernel.release, fact: wrong.name, found: wrong.found },
    );
  }
  const { release, source } = guest.kernel.layout.kernel;
  throw new DomschedError(
    'layout-disproved',
    `${name}: the layout of ${release} is not the guest's: "${wrong.name}" does not hold (${wrong.found}); ` +
      `make the layout again from the very kernel that the guest booted (this one is from ${source.file})${other}`,
    { domain: name, release, fact: wrong.name, found: wrong.found, facts },
  );
}

/**
 * Whether the layout fits the first task and there is no other one: the kernel has not yet made process 1. Until then
 * run queues and per-CPU areas are not in their final state.
 */
function hasNoProcesses(guest: ProvableGuest, facts: readonly Fact[]): boolean {
  const own = facts.filter(({ name }) => name.startsWith('init_task '));
  if (own.length === 0 || own.some(({ holds }) => !holds)) return false;
  const initTask = requireSymbolAddress(guest.kernel, 'init_task');
  const task = new TaskCopy(guest, initTask);
  const node = advance(initTask, task.offset('tasks'));
  return task.link('tasks', 'next') === node && task.link('tasks', 'prev') === node;
}

type TaskMember = MemberName<'task_struct'>;

/** A copy of one task_struct, read member by member through the layout. */
class TaskCopy {
  readonly #guest: ProvableGuest;
  readonly #view: DataView;

  /** @throws DomschedError `translation-fault` */
  constructor(guest: ProvableGuest, address: GuestVirtual) {
    this.#guest = guest;
    // The last pages of a task_struct may not be mapped: read those that are.
    const size = sizeOf(guest.layout, 'task_struct');
    const batch = new ReadBatch();
    batch.add(address, size);
    guest.space.read(batch);
    const bytes = batch.content(0).slice();
    this.#view = new DataView(bytes.buffer);
  }

  offset(name: TaskMember): number {
    return this.#field(name).offset;
  }

  number(name: TaskMember): number {
    return this.#field(name).number(this.#view);
  }

  pointer(name: TaskMember): GuestVirtual {
    return this.#field(name).bigint(this.#view) as GuestVirtual;
  }

  /** The next or previous node in a list that contains the task. */
  link(list: 'tasks' | 'sibling', to: 'next' | 'prev'): GuestVirtual {
    const end = requiredField(this.#guest.layout, 'list_head', to);
    return end.bigint(this.#view, this.offset(list)) as GuestVirtual;
  }

  comm(): string {
    const { offset, size } = this.#field('comm');
    const bytes = Buffer.from(this.#view.buffer, offset, size);
    const end = bytes.indexOf(0);
    return printableBytes(bytes.subarray(0, end < 0 ? size : end).toString('latin1'));
  }

  #field(name: TaskMember): Field {
    return requiredField(this.#guest.layout, 'task_struct', name);
  }
}

/** The task at an address; undefined if it is not mapped. */
function tryTask(guest: ProvableGuest, address: GuestVirtual): TaskCopy | undefined {
  return isFault(guest.space.probe(address)) ? undefined : new TaskCopy(guest, address);
}

/** The pointer in a member of the structure at `base`; null if it is not mapped. */
function tryPointer(space: AddressSpace, base: GuestVirtual, member: Field): GuestVirtual {
  try {
    return readPointer(space, base, member);
  } catch (error) {
    if ((error as { code?: string }).code !== 'translation-fault') throw error;
    return 0n as GuestVirtual;
  }
}
