import { type Word, wordsOf } from '../../edit/member.ts';
import type { WordSize } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import { type Lock, lockOf } from '../../guest/locks.ts';
import { hasMember, requiredField, sizeOf } from '../../layout/members.ts';
import type { LayoutView } from '../../layout/view.ts';
import type { EnumeratorName } from '../../members/symbols.ts';
import { homesFor } from './scratch.ts';

/** Bytes of a pointer on x86-64. */
const POINTER = 8 as const;

/** Members that a wake-up by the guest itself needs, resolved once from the guest's layout. Names are the kernel's. */
export type WakeMembers = ReturnType<typeof wakeMembers>;

/** The same for parking, which needs these and more. */
export type ParkMembers = ReturnType<typeof parkMembers>;

/**
 * Why threads of a kernel cannot be parked in the trap of the control groups' freezer, or null where they can. The trap
 * came with `task_struct.frozen` ("cgroup: cgroup v2 freezer", 5.2), which CONFIG_CGROUPS brings: without it the trap's
 * code is there (`do_freezer_trap()`), but nothing tells a thread that sleeps in it from one that sleeps elsewhere.
 */
export function noTrap(layout: LayoutView): string | null {
  const lacking = (['frozen', 'task_works'] as const).find((name) => !hasMember(layout, 'task_struct', name));
  return lacking === undefined
    ? null
    : `it has no freezer trap that its threads show (no task_struct.${lacking}): that takes Linux 5.2 and control groups (CONFIG_CGROUPS)`;
}

/** @throws DomschedError `layout-absent-member`; `refused` for a layout without room for our forged words */
export function wakeMembers(layout: LayoutView) {
  const timer = sizeOf(layout, 'timer_list');
  const irqWorkSize = timer + POINTER;
  // Between the end of the work and the task that it wakes. Only we read it.
  const list =
    timer - POINTER >= sizeOf(layout, 'irq_work') ? { offset: timer - POINTER, size: POINTER } : undefined;
  const { se } = wordsOf(layout, 'task_struct', ['se']);
  return {
    task_struct: {
      ...wordsOf(layout, 'task_struct', ['thread_flags', 'flags', 'state', 'exit_state', 'on_cpu', 'on_rq']),
      ...wordsOf(layout, 'task_struct', ['mm', 'task_works', 'sighand', 'usage']),
      ...wordsOf(layout, 'sched_entity', ['sched_delayed?'], se),
      /** Offset of the `rcu_head` that `delayed_put_task_struct()` is called with. */
      ...wordsOf(layout, 'task_struct', ['rcu']),
      pi_lock: smp(layout, lockOf(layout, 'task_struct', 'pi_lock')),
    },
    sighand_struct: { siglock: smp(layout, lockOf(layout, 'sighand_struct', 'siglock')) },
    callback_head: wordsOf(layout, 'callback_head', ['next', 'func']),
    irq_work: {
      ...wordsOf(layout, 'irq_work', ['next', 'flags', 'func', 'irqwait?']),
      /** `process_timeout()` looks here for the task that it wakes: behind its `timer_list`. Its code proves it. */
      task: { offset: timer, size: POINTER },
      /** Our own word: the list that the work goes onto. Undefined where there is no room for it. */
      list,
      /** Bytes up to the end of `task`. */
      size: irqWorkSize,
      /** Flags of a work that a CPU has yet to run or is running. */
      active: constant(layout, 'IRQ_WORK_PENDING') | constant(layout, 'IRQ_WORK_BUSY'),
      lazy: constant(layout, 'IRQ_WORK_LAZY'),
    },
    rq: wordsOf(layout, 'rq', ['curr', 'idle']),
    ...irqWorkHomes(layout, irqWorkSize),
  };
}

/** @throws DomschedError as {@link wakeMembers} */
export function parkMembers(layout: LayoutView) {
  const { bits } = requiredField(layout, 'task_struct', 'frozen');
  if (bits === undefined || bits.size > 8) throw unusable(layout, 'task_struct.frozen is no bit');
  const wake = wakeMembers(layout);
  return {
    ...wake,
    task_struct: {
      ...wake.task_struct,
      ...wordsOf(layout, 'task_struct', ['ptrace', 'jobctl', 'cgroups']),
      /** The word with the bit that is set in the freezer trap, and that bit. */
      frozen: { offset: bits.offset, size: bits.size as WordSize },
      frozenMask: BigInt(bits.mask),
    },
    css_set: wordsOf(layout, 'css_set', ['dfl_cgrp']),
    cgroup: wordsOf(layout, 'cgroup', ['e_freeze']),
    ...workHome(layout),
  };
}

/** Home of the task work: 16 free bytes, by their offset from a `task_struct`. */
interface WorkHome {
  readonly workHome: number;
  /**
   * For bytes in the `fpu` behind the task: offsets from the `task_struct` of the `fpstate` pointer and its own state.
   */
  readonly fpu: { readonly fpstate: Word; readonly own: number } | null;
}

/** Why a kernel has no room for the work that parks a thread, or null where it has. */
export function noWorkHome(layout: LayoutView): string | null {
  return workHomeIn(layout) === null ? NO_WORK_HOME : null;
}

const NO_WORK_HOME = 'task_struct has no padding for a task work';

function workHome(layout: LayoutView): WorkHome {
  const home = workHomeIn(layout);
  if (home !== null) return home;
  throw unusable(layout, NO_WORK_HOME);
}

function workHomeIn(layout: LayoutView): WorkHome | null {
  const size = sizeOf(layout, 'callback_head');
  const [inTask] = homesFor(layout, 'task_struct', size);
  if (inTask !== undefined) return { workHome: inTask, fpu: null };
  // The `fpu` is in one allocation with the task since "x86/fpu: Remove the thread::fpu pointer", 6.16.
  const isBehind = layout.struct('fpu') !== undefined && !layout.has('thread_struct', 'fpu.__fpstate');
  const [inFpu] = isBehind ? homesFor(layout, 'fpu', size) : [];
  if (inFpu === undefined) return null;
  const end = sizeOf(layout, 'task_struct');
  const { fpstate, own } = wordsOf(layout, 'fpu', ['fpstate', 'own'], end);
  return { workHome: end + inFpu, fpu: { fpstate, own } };
}

/** Homes of irq works: free bytes of a per-CPU variable, one work in each, by offset. */
interface IrqWorkHomes {
  readonly irqWorkVariable: 'runqueues' | 'cpu_tss_rw';
  readonly irqWorkHomes: readonly number[];
}

/** Every pause looks at each of them. */
const MAX_HOMES = 4;

function irqWorkHomes(layout: LayoutView, size: number): IrqWorkHomes {
  const inQueue = homesFor(layout, 'rq', size);
  if (inQueue.length > 0) return { irqWorkVariable: 'runqueues', irqWorkHomes: inQueue };
  const tss = layout.symbol('cpu_tss_rw') === undefined ? undefined : layout.struct('tss_struct');
  // The segment's limit is the end of its last member (`__KERNEL_TSS_LIMIT`); the CPU may read anything before it.
  const limit = Math.max(0, ...[...(tss?.members.values() ?? [])].map(({ offset, size }) => offset + size));
  const inTss = tss === undefined ? [] : homesFor(layout, 'tss_struct', size).filter((home) => home >= limit);
  if (inTss.length === 0) throw unusable(layout, 'neither rq nor tss_struct has padding for an irq work');
  return { irqWorkVariable: 'cpu_tss_rw', irqWorkHomes: inTss.slice(0, MAX_HOMES) };
}

/** Without SMP there is no lock that would show from outside whether its data is being changed. */
function smp(layout: LayoutView, lock: Lock): Lock {
  if (lock.kind !== 'none') return lock;
  throw unusable(layout, `${lock.name} is no lock (UP)`);
}

function constant(layout: LayoutView, name: EnumeratorName): bigint {
  const value = layout.constant(name);
  if (value !== undefined) return BigInt(value);
  throw new DomschedError(
    'layout-absent-member',
    `Kernel ${layout.kernel.release}: the layout has no constant ${name}. Extract the kernel again from its debug file.`,
    { constant: name },
  );
}

function unusable(layout: LayoutView, why: string): DomschedError {
  return new DomschedError(
    'refused',
    `${layout.kernel.release}: ${why}; its processes cannot be parked or woken`,
    {
      release: layout.kernel.release,
    },
  );
}
