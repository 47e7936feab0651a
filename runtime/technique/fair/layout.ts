import { type Field, optionalWord, wordMember } from '../../edit/member.ts';
import { planLock } from '../../guest/locks.ts';
import type { LayoutView } from '../../layout/view.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import type { LockField } from '../lock.ts';
import type { SpliceBits, StateBits } from '../proved-bits.ts';
import type { RbLayout } from './rb-tree.ts';

/** Members of a `sched_avg` within the structure around it. */
export interface AverageFields {
  readonly lastUpdateTime: Field;
  readonly loadSum: Field;
  readonly runnableSum: Field;
  readonly utilSum: Field;
  readonly periodContrib: Field;
  readonly loadAvg: Field;
  readonly runnableAvg: Field;
  readonly utilAvg: Field;
}

/** What edits of fair run queues with group scheduling need of a guest's layout, resolved once. */
export interface FairLayout {
  readonly rq: {
    readonly lock: LockField;
    readonly nr_running: Field;
    readonly curr: Field;
    readonly idle: Field;
    /** Offsets of the root `cfs_rq` and of two list heads. */
    readonly cfs: number;
    readonly cfs_tasks: number;
    readonly leaf_cfs_rq_list: number;
    readonly tmp_alone_branch: Field;
    /** Core scheduling, where the kernel has it: "sched: Core-wide rq->lock", 5.14. */
    readonly core_enabled: Field | null;
  };
  readonly cfs_rq: {
    readonly weight: Field;
    readonly inv_weight: Field;
    /** "sched/fair: Rename cfs_rq.nr_running into nr_queued", 6.14. */
    readonly nr_queued: Field;
    /** "sched/fair: Rename h_nr_running into h_nr_queued", 6.14. */
    readonly h_nr_queued: Field;
    /** "sched/fair: Add new cfs_rq.h_nr_runnable", 6.14: without what is queued but asleep. */
    readonly h_nr_runnable: Field | null;
    readonly idle_nr: Field | null;
    readonly h_nr_idle: Field | null;
    /** The group as a whole is SCHED_IDLE: "sched: Cgroup SCHED_IDLE support", 5.15. */
    readonly idle: Field | null;
    readonly root: Field;
    readonly leftmost: Field;
    readonly curr: Field;
    readonly buddies: readonly { readonly name: string; readonly field: Field }[];
    readonly rq: Field;
    readonly on_list: Field;
    readonly leaf_cfs_rq_list: number;
    readonly throttle_count: Field | null;
    /** `avg.last_update_time`. */
    readonly lastUpdateTime: Field;
  };
  readonly sched_entity: {
    readonly weight: Field;
    readonly run_node: number;
    readonly group_node: number;
    readonly on_rq: Field;
    readonly vruntime: Field;
    readonly parent: Field;
    readonly cfs_rq: Field;
    readonly my_q: Field;
    readonly runnable_weight: Field;
    readonly avg: AverageFields;
    /** "sched/fair: Implement delayed dequeue", 6.12. */
    readonly sched_delayed: Field | null;
  };
  readonly task_struct: {
    /** Offset of the `sched_entity`. */
    readonly se: number;
    readonly thread_flags: Field;
    readonly state: Field;
    readonly on_cpu: Field;
    readonly on_rq: Field;
    readonly policy: Field;
    readonly sched_class: Field;
    readonly cpu: Field;
    readonly cpus_ptr: Field;
    readonly pi_lock: LockField;
    readonly stack: Field;
    readonly sp: Field;
    readonly numa_preferred_nid: Field | null;
    readonly task_works: Field;
    readonly ptrace: Field;
  };
  readonly list_head: { readonly next: Field; readonly prev: Field };
  readonly rb_node: RbLayout;
  /** {@link canSpliceFair}. */
  readonly splices: boolean;
  /** Bytes of `struct pt_regs`. */
  readonly registers: number;
  /** CFS up to 6.5: the queue's `min_vruntime`. */
  readonly cfs: { readonly min_vruntime: Field } | null;
  /** EEVDF since "sched/fair: Implement an EEVDF-like scheduling policy", 6.6. */
  readonly eevdf: EevdfLayout | null;
}

export interface EevdfLayout {
  readonly cfs_rq: {
    readonly avg_vruntime: Field;
    readonly avg_load: Field;
    /** What the sums are relative to. */
    readonly zero: Field;
    /** "sched/eevdf: Fix min_vruntime vs avg_vruntime" gave them a zero of their own, which every reading moves. */
    readonly zeroMoves: boolean;
  };
  readonly sched_entity: {
    readonly deadline: Field;
    readonly min_vruntime: Field;
    /** "sched/eevdf: Propagate min_slice up the cgroup hierarchy", 6.12. */
    readonly min_slice: Field | null;
    readonly vlag: Field;
    readonly slice: Field;
    /** "sched/fair: Avoid re-setting virtual deadline on 'migrations'", 6.12. */
    readonly rel_deadline: Field | null;
  };
}

/** One CPU's run queue. */
export interface FairCpu {
  readonly cpu: number;
  /** Of its `rq`. */
  readonly address: GuestVirtual;
  /** Of its preemption count, an `int`. */
  readonly preemptCount: GuestVirtual;
}

/** What edits of fair run queues need to know of one guest. */
export interface FairGuest {
  readonly layout: FairLayout;
  readonly bits: SpliceBits;
  /** Null where one of them is not proved: then nothing is held by state. */
  readonly stateBits: StateBits | null;
  readonly queues: readonly FairCpu[];
  readonly fairSchedClass: GuestVirtual;
  /** Of `__cpu_active_mask`. */
  readonly activeMask: GuestVirtual;
  /** Of `tick_nsec`. */
  readonly tickNsec: GuestVirtual;
  /** Of functions by which a stack tells where its thread was preempted. */
  readonly schedule: GuestVirtual;
  readonly exitToUser: GuestVirtual;
  readonly text: { readonly start: GuestVirtual; readonly end: GuestVirtual };
}

/**
 * Why fair queues of a kernel cannot be edited, by the members that they have; null where they can: those of SMP kernels
 * with group scheduling, without utilization clamping (its buckets are counted per queue).
 */
export function fairQueuesRefusal(layout: LayoutView): string | null {
  if (layout.has('rq', 'uclamp')) return 'rq.uclamp counts its queued threads besides (CONFIG_UCLAMP_TASK)';
  const lacks = MEMBERS.find((ways) => !ways.some(([struct, path]) => layout.has(struct, path)));
  if (lacks) return `its layout has no ${lacks.map((way) => way.join('.')).join(' or ')}`;
  const hasPreemptCount =
    layout.has('pcpu_hot', 'preempt_count') || layout.symbol('__preempt_count') !== undefined;
  if (!hasPreemptCount) return 'its layout has no pcpu_hot.preempt_count or symbol __preempt_count';
  const unknown = SYMBOLS.filter((name) => layout.symbol(name) === undefined);
  return unknown.length > 0 ? `its layout has no symbol ${unknown.join(', ')}` : null;
}

/** Members of which a kernel whose fair queues can be edited has one of each line. */
const MEMBERS: readonly (readonly (readonly [struct: string, path: string])[])[] = [
  [['cfs_rq', 'tasks_timeline.rb_leftmost']],
  [['cfs_rq', 'tasks_timeline.rb_root.rb_node']],
  [['sched_entity', 'my_q']],
  [['cfs_rq', 'leaf_cfs_rq_list']],
  [['task_group', 'shares']],
  [['sched_entity', 'runnable_weight']],
  [['rq', 'tmp_alone_branch']],
  [
    ['cfs_rq', 'avg_vruntime'],
    ['cfs_rq', 'min_vruntime'],
  ],
];

const SYMBOLS = [
  'schedule',
  'irqentry_exit_to_user_mode',
  '__cpu_active_mask',
  'tick_nsec',
  'root_task_group',
];

/**
 * Whether a thread may be taken out of a queue, or put into it, behind the back of its fair server ("sched/fair: Add
 * trivial fair server", 6.12). At first a queue's first thread started the server and its last one stopped it, neither
 * with a look at whether it ran: twice in a row counts its bandwidth twice, and warns. Since "sched/deadline: Fix dl_server
 * behaviour", 6.18, and in stable kernels that have it, it is started only if it does not run and ends by itself; that
 * took away how it asked whether there was anything to do.
 */
export function canSpliceFair(layout: Pick<LayoutView, 'has'>): boolean {
  return !layout.has('rq', 'fair_server') || !layout.has('sched_dl_entity', 'server_has_tasks');
}

/** @throws DomschedError `layout-absent-member` */
export function resolveFairLayout(layout: LayoutView): FairLayout {
  const word = (struct: string, path: string) => wordMember(layout, struct, path);
  const maybe = (struct: string, path: string) => optionalWord(layout, struct, path);
  const offset = (struct: string, path: string) => layout.field(struct, path).offset;
  const either = (struct: string, first: string, second: string) =>
    maybe(struct, first) ?? word(struct, second);
  // "sched: Wrap rq::lock access", 5.14.
  const lock = layout.has('rq', '__lock') ? '__lock' : 'lock';
  return {
    rq: {
      lock: { ...planLock(layout, 'rq', lock), name: 'rq.lock' },
      nr_running: word('rq', 'nr_running'),
      curr: word('rq', 'curr'),
      idle: word('rq', 'idle'),
      cfs: offset('rq', 'cfs'),
      cfs_tasks: offset('rq', 'cfs_tasks'),
      leaf_cfs_rq_list: offset('rq', 'leaf_cfs_rq_list'),
      tmp_alone_branch: word('rq', 'tmp_alone_branch'),
      core_enabled: maybe('rq', 'core_enabled'),
    },
    cfs_rq: {
      weight: word('cfs_rq', 'load.weight'),
      inv_weight: word('cfs_rq', 'load.inv_weight'),
      nr_queued: either('cfs_rq', 'nr_queued', 'nr_running'),
      h_nr_queued: either('cfs_rq', 'h_nr_queued', 'h_nr_running'),
      h_nr_runnable: maybe('cfs_rq', 'h_nr_runnable'),
      idle_nr: maybe('cfs_rq', 'idle_nr_running'),
      // "sched/fair: Rename cfs_rq.idle_h_nr_running into h_nr_idle", 6.14.
      h_nr_idle: maybe('cfs_rq', 'h_nr_idle') ?? maybe('cfs_rq', 'idle_h_nr_running'),
      idle: maybe('cfs_rq', 'idle'),
      root: word('cfs_rq', 'tasks_timeline.rb_root.rb_node'),
      leftmost: word('cfs_rq', 'tasks_timeline.rb_leftmost'),
      curr: word('cfs_rq', 'curr'),
      buddies: ['next', 'last', 'skip'].flatMap((name) => {
        const field = maybe('cfs_rq', name);
        return field === null ? [] : [{ name, field }];
      }),
      rq: word('cfs_rq', 'rq'),
      on_list: word('cfs_rq', 'on_list'),
      leaf_cfs_rq_list: offset('cfs_rq', 'leaf_cfs_rq_list'),
      throttle_count: maybe('cfs_rq', 'throttle_count'),
      lastUpdateTime: word('cfs_rq', 'avg.last_update_time'),
    },
    sched_entity: {
      weight: word('sched_entity', 'load.weight'),
      run_node: offset('sched_entity', 'run_node'),
      group_node: offset('sched_entity', 'group_node'),
      on_rq: word('sched_entity', 'on_rq'),
      vruntime: word('sched_entity', 'vruntime'),
      parent: word('sched_entity', 'parent'),
      cfs_rq: word('sched_entity', 'cfs_rq'),
      my_q: word('sched_entity', 'my_q'),
      runnable_weight: word('sched_entity', 'runnable_weight'),
      avg: {
        lastUpdateTime: word('sched_entity', 'avg.last_update_time'),
        loadSum: word('sched_entity', 'avg.load_sum'),
        runnableSum: word('sched_entity', 'avg.runnable_sum'),
        utilSum: word('sched_entity', 'avg.util_sum'),
        periodContrib: word('sched_entity', 'avg.period_contrib'),
        loadAvg: word('sched_entity', 'avg.load_avg'),
        runnableAvg: word('sched_entity', 'avg.runnable_avg'),
        utilAvg: word('sched_entity', 'avg.util_avg'),
      },
      sched_delayed: maybe('sched_entity', 'sched_delayed'),
    },
    task_struct: {
      se: offset('task_struct', 'se'),
      thread_flags: word('task_struct', 'thread_info.flags'),
      // "sched: Change task_struct::state", 5.14.
      state: either('task_struct', '__state', 'state'),
      on_cpu: word('task_struct', 'on_cpu'),
      on_rq: word('task_struct', 'on_rq'),
      policy: word('task_struct', 'policy'),
      sched_class: word('task_struct', 'sched_class'),
      // "sched: move CPU field back into thread_info if THREAD_INFO_IN_TASK=y", 5.16.
      cpu: either('task_struct', 'cpu', 'thread_info.cpu'),
      cpus_ptr: word('task_struct', 'cpus_ptr'),
      pi_lock: { ...planLock(layout, 'task_struct', 'pi_lock'), name: 'task.pi_lock' },
      stack: word('task_struct', 'stack'),
      sp: word('task_struct', 'thread.sp'),
      numa_preferred_nid: maybe('task_struct', 'numa_preferred_nid'),
      task_works: word('task_struct', 'task_works'),
      ptrace: word('task_struct', 'ptrace'),
    },
    list_head: { next: word('list_head', 'next'), prev: word('list_head', 'prev') },
    rb_node: {
      parentColor: word('rb_node', '__rb_parent_color'),
      left: word('rb_node', 'rb_left'),
      right: word('rb_node', 'rb_right'),
    },
    splices: canSpliceFair(layout),
    registers: layout.requireStruct('pt_regs').size,
    ...disciplines(layout),
  };
}

/** A kernel has one of the two. */
function disciplines(layout: LayoutView): Pick<FairLayout, 'cfs' | 'eevdf'> {
  const word = (struct: string, path: string) => wordMember(layout, struct, path);
  if (!layout.has('sched_entity', 'deadline')) {
    return { cfs: { min_vruntime: word('cfs_rq', 'min_vruntime') }, eevdf: null };
  }
  const zero = optionalWord(layout, 'cfs_rq', 'zero_vruntime');
  return {
    cfs: null,
    eevdf: {
      cfs_rq: {
        avg_vruntime: word('cfs_rq', 'avg_vruntime'),
        avg_load: word('cfs_rq', 'avg_load'),
        zero: zero ?? word('cfs_rq', 'min_vruntime'),
        zeroMoves: zero !== null,
      },
      sched_entity: {
        deadline: word('sched_entity', 'deadline'),
        min_vruntime: word('sched_entity', 'min_vruntime'),
        min_slice: optionalWord(layout, 'sched_entity', 'min_slice'),
        vlag: word('sched_entity', 'vlag'),
        slice: word('sched_entity', 'slice'),
        rel_deadline: optionalWord(layout, 'sched_entity', 'rel_deadline'),
      },
    },
  };
}
