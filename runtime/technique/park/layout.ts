import { type Field, optionalWord, wordMember } from '../../edit/member.ts';
import { DomschedError } from '../../error.ts';
import { planLock } from '../../guest/locks.ts';
import type { LayoutView } from '../../layout/view.ts';
import type { LockField } from '../lock.ts';
import { homesFor } from './scratch.ts';

/** What parking needs of a guest's layout, resolved once. Names are the kernel's. */
export interface ParkLayout {
  readonly task_struct: {
    /** `thread_info.flags`: the thread's own work flags. */
    readonly thread_flags: Field;
    /** PF_ flags. */
    readonly flags: Field;
    readonly state: Field;
    readonly exit_state: Field;
    readonly on_cpu: Field;
    readonly on_rq: Field;
    /** "sched/fair: Implement delayed dequeue", 6.12: a sleeper may stay in the tree for a while. */
    readonly sched_delayed: Field | null;
    readonly mm: Field;
    readonly ptrace: Field;
    readonly jobctl: Field;
    readonly task_works: Field;
    readonly sighand: Field;
    readonly cgroups: Field;
    /** References to the structure (`refcount_t`): with the last one it is freed. */
    readonly usage: Field;
    /** The `rcu_head`, which `delayed_put_task_struct()` is called with. */
    readonly rcu: number;
    /** The word with the bit that is set in the freezer trap, and the bit. */
    readonly frozen: Field;
    readonly frozenMask: bigint;
    readonly pi_lock: LockField;
  };
  readonly sighand_struct: { readonly siglock: LockField };
  readonly callback_head: { readonly next: Field; readonly func: Field };
  readonly irq_work: {
    readonly next: Field;
    readonly flags: Field;
    readonly func: Field;
    readonly irqwait: Field;
    /** Where `process_timeout()` looks for the task that it wakes: behind its `timer_list`. */
    readonly task: Field;
    /** Bytes up to the end of `task`. */
    readonly size: number;
    /** IRQ_WORK_PENDING | IRQ_WORK_BUSY: a CPU has yet to run it, or is running it. */
    readonly active: bigint;
    readonly lazy: bigint;
  };
  readonly css_set: { readonly dfl_cgrp: Field };
  /** Of a `cgroup`: the guest freezes its tasks. */
  readonly cgroup: { readonly e_freeze: Field };
  readonly rq: { readonly curr: Field; readonly idle: Field };
  /** Offset in `task_struct` of 16 free bytes for the task work. */
  readonly workHome: number;
  /** Offsets in `rq` of free bytes for irq works, one in each. */
  readonly irqWorkHomes: readonly number[];
}

/** Whether a kernel has the freezer trap: "cgroup: cgroup v2 freezer", 5.2, brought `task_struct.frozen` and the trap. */
export function canPark(layout: LayoutView): boolean {
  return layout.has('task_struct', 'frozen') && layout.has('task_struct', 'task_works');
}

/** @throws DomschedError `layout-absent-member`; `refused` for a layout without room for the words that are forged */
export function resolveParkLayout(layout: LayoutView): ParkLayout {
  const word = (struct: string, path: string) => wordMember(layout, struct, path);
  const frozen = layout.field('task_struct', 'frozen');
  const bits = frozen.bits;
  if (bits === undefined || bits.size > 8) throw unusable(layout, 'task_struct.frozen is no bit');
  const timer = layout.requireStruct('timer_list').size;
  const irqWorkSize = timer + 8;
  const [workHome] = homesFor(layout, 'task_struct', layout.requireStruct('callback_head').size);
  if (workHome === undefined) throw unusable(layout, 'task_struct has no padding for a task work');
  const irqWorkHomes = homesFor(layout, 'rq', irqWorkSize);
  if (irqWorkHomes.length === 0) throw unusable(layout, 'rq has no padding for an irq work');
  return {
    task_struct: {
      thread_flags: word('task_struct', 'thread_info.flags'),
      flags: word('task_struct', 'flags'),
      // "sched: Change task_struct::state", 5.14.
      state: optionalWord(layout, 'task_struct', '__state') ?? word('task_struct', 'state'),
      exit_state: word('task_struct', 'exit_state'),
      on_cpu: word('task_struct', 'on_cpu'),
      on_rq: word('task_struct', 'on_rq'),
      sched_delayed: optionalWord(layout, 'task_struct', 'se.sched_delayed'),
      mm: word('task_struct', 'mm'),
      ptrace: word('task_struct', 'ptrace'),
      jobctl: word('task_struct', 'jobctl'),
      task_works: word('task_struct', 'task_works'),
      sighand: word('task_struct', 'sighand'),
      cgroups: word('task_struct', 'cgroups'),
      usage: word('task_struct', 'usage'),
      rcu: layout.field('task_struct', 'rcu').offset,
      frozen: { offset: bits.offset, size: bits.size as Field['size'] },
      frozenMask: BigInt(bits.mask),
      pi_lock: lock(layout, 'task_struct', 'pi_lock', 'task.pi_lock'),
    },
    sighand_struct: { siglock: lock(layout, 'sighand_struct', 'siglock', 'sighand.siglock') },
    callback_head: { next: word('callback_head', 'next'), func: word('callback_head', 'func') },
    irq_work: {
      next: word('irq_work', 'node.llist.next'),
      flags: word('irq_work', 'node.u_flags'),
      func: word('irq_work', 'func'),
      irqwait: word('irq_work', 'irqwait.task'),
      task: { offset: timer, size: 8 },
      size: irqWorkSize,
      active: constant(layout, 'IRQ_WORK_PENDING') | constant(layout, 'IRQ_WORK_BUSY'),
      lazy: constant(layout, 'IRQ_WORK_LAZY'),
    },
    css_set: { dfl_cgrp: word('css_set', 'dfl_cgrp') },
    cgroup: { e_freeze: word('cgroup', 'freezer.e_freeze') },
    rq: { curr: word('rq', 'curr'), idle: word('rq', 'idle') },
    workHome,
    irqWorkHomes,
  };
}

function lock(layout: LayoutView, struct: string, member: string, name: string): LockField {
  const plan = planLock(layout, struct, member);
  // Without SMP nobody can tell from outside whether what the lock would guard is being changed.
  if (plan.kind === 'none') throw unusable(layout, `${name} is no lock (UP)`);
  return { ...plan, name };
}

function constant(layout: LayoutView, name: string): bigint {
  const value = layout.constant(name);
  if (value !== undefined) return BigInt(value);
  throw new DomschedError(
    'layout-absent-member',
    `Kernel ${layout.kernel.release}: the layout has no constant ${name}. Extract the kernel again from its debug file.`,
    { constant: name },
  );
}

function unusable(layout: LayoutView, why: string): DomschedError {
  return new DomschedError('refused', `${layout.kernel.release}: ${why}; its processes cannot be parked`, {
    release: layout.kernel.release,
  });
}
