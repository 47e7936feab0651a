import type { WayOut } from '../../code/way-out.ts';
import { wordsOf } from '../../edit/member.ts';
import { DomschedError } from '../../error.ts';
import { lockOf } from '../../guest/locks.ts';
import { hasSingleQueue } from '../../guest/queue-slots.ts';
import { hasMember, lackOf, type MembersByStruct, optionalField, sizeOf } from '../../layout/members.ts';
import type { LayoutView } from '../../layout/view.ts';
import type { SymbolName } from '../../members/symbols.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import type { ProvedStateBits, SpliceBits } from '../proved-bits.ts';

/** Members that edits of fair run queues need, resolved once from the guest's layout. */
export type FairMembers = ReturnType<typeof fairMembers>;

/** @throws DomschedError `layout-absent-member` */
export function fairMembers(layout: LayoutView) {
  const cfs_rq = wordsOf(layout, 'cfs_rq', [
    ...([
      'weight',
      'inv_weight',
      'nr_queued',
      'h_nr_queued',
      'h_nr_runnable?',
      'idle_nr?',
      'h_nr_idle?',
    ] as const),
    ...(['idle?', 'root', 'leftmost', 'curr', 'throttle_count?', 'avg'] as const),
  ]);
  const buddies = Object.entries(wordsOf(layout, 'cfs_rq', ['next?', 'last?', 'skip?']));
  const sched_entity = wordsOf(layout, 'sched_entity', [
    ...(['weight', 'run_node', 'group_node', 'on_rq', 'vruntime', 'avg', 'sched_delayed?'] as const),
  ]);
  return {
    rq: {
      lock: lockOf(layout, 'rq', 'lock'),
      ...wordsOf(layout, 'rq', ['nr_running', 'curr', 'idle', 'cfs', 'cfs_tasks', 'core_enabled?']),
    },
    groups: hasGroups(layout) ? groupMembers(layout) : null,
    single: hasSingleQueue(layout) ? singleMembers(layout) : null,
    cfs_rq: {
      ...cfs_rq,
      buddies: buddies.flatMap(([name, field]) => (field === undefined ? [] : [{ name, field }])),
      avg: wordsOf(layout, 'sched_avg', ['last_update_time'], cfs_rq.avg),
    },
    sched_entity: {
      ...sched_entity,
      avg: wordsOf(
        layout,
        'sched_avg',
        [
          ...(['last_update_time', 'load_sum', 'runnable_sum', 'util_sum', 'period_contrib'] as const),
          ...(['load_avg', 'runnable_avg', 'util_avg'] as const),
        ],
        sched_entity.avg,
      ),
    },
    task_struct: {
      pi_lock: lockOf(layout, 'task_struct', 'pi_lock'),
      ...wordsOf(layout, 'task_struct', ['se', 'thread_flags', 'state', 'on_cpu', 'on_rq', 'policy', 'cpu']),
      ...wordsOf(layout, 'task_struct', ['sched_class', 'cpus_ptr', 'stack', 'sp', 'task_works', 'ptrace']),
      ...wordsOf(layout, 'task_struct', ['numa_preferred_nid?', 'preferred_llc?']),
    },
    list_head: wordsOf(layout, 'list_head', ['next', 'prev']),
    rb_node: wordsOf(layout, 'rb_node', ['__rb_parent_color', 'rb_left', 'rb_right']),
    /** Type of `sched_uclamp_used`, on kernels whose queues count by clamp. */
    static_key: hasMember(layout, 'rq', 'uclamp') ? wordsOf(layout, 'static_key', ['enabled']) : undefined,
    pt_regs: { size: sizeOf(layout, 'pt_regs'), ...wordsOf(layout, 'pt_regs', ['cs']) },
    ...disciplines(layout),
  };
}

/** Members of queues of groups and their entities. A kernel without CONFIG_FAIR_GROUP_SCHED has one queue per CPU. */
export type GroupMembers = ReturnType<typeof groupMembers>;

function groupMembers(layout: LayoutView) {
  return {
    rq: wordsOf(layout, 'rq', ['leaf_cfs_rq_list', 'tmp_alone_branch']),
    cfs_rq: wordsOf(layout, 'cfs_rq', ['rq', 'on_list', 'leaf_cfs_rq_list']),
    sched_entity: wordsOf(layout, 'sched_entity', ['parent', 'cfs_rq', 'my_q', 'runnable_weight']),
  };
}

export type SingleMembers = ReturnType<typeof singleMembers>;

/** Members of kernels with one tree per CPU for the tasks of all groups. */
function singleMembers(layout: LayoutView) {
  return {
    cfs_rq: wordsOf(layout, 'cfs_rq', ['h_curr']),
    sched_entity: wordsOf(layout, 'sched_entity', ['h_weight', 'h_inv_weight']),
  };
}

/** Whether a kernel's fair queues are of groups: one of the members that this brings is enough to say so. */
export function hasGroups(layout: LayoutView): boolean {
  return (
    (['my_q', 'parent', 'cfs_rq', 'runnable_weight'] as const).some((name) =>
      hasMember(layout, 'sched_entity', name),
    ) ||
    (['rq', 'on_list', 'leaf_cfs_rq_list'] as const).some((name) => hasMember(layout, 'cfs_rq', name)) ||
    hasMember(layout, 'rq', 'leaf_cfs_rq_list')
  );
}

/** A kernel has one of the two: CFS up to 6.5, EEVDF since 6.6. */
function disciplines(layout: LayoutView) {
  const isEevdf = hasMember(layout, 'sched_entity', 'deadline');
  return {
    cfs: isEevdf ? undefined : wordsOf(layout, 'cfs_rq', ['min_vruntime']),
    eevdf: isEevdf ? eevdfMembers(layout) : undefined,
  };
}

export type EevdfMembers = ReturnType<typeof eevdfMembers>;

function eevdfMembers(layout: LayoutView) {
  const { zero_vruntime } = wordsOf(layout, 'cfs_rq', ['zero_vruntime?']);
  return {
    cfs_rq: {
      ...wordsOf(layout, 'cfs_rq', ['avg_vruntime', 'avg_load', 'sum_shift?']),
      /** The virtual time that the sums are relative to. */
      zero: zero_vruntime ?? wordsOf(layout, 'cfs_rq', ['min_vruntime']).min_vruntime,
      zeroMoves: zero_vruntime !== undefined,
    },
    sched_entity: wordsOf(layout, 'sched_entity', [
      ...([
        'deadline',
        'min_vruntime',
        'min_slice?',
        'max_slice?',
        'vlag',
        'slice',
        'rel_deadline?',
      ] as const),
    ]),
  };
}

/** One CPU's run queue. */
export interface FairCpu {
  readonly cpu: number;
  /** Address of its `rq`. */
  readonly address: GuestVirtual;
  /** Address of its preemption count. */
  readonly preemptCount: GuestVirtual;
}

/** Everything about one guest that edits of fair run queues need. */
export interface FairGuest {
  readonly members: FairMembers;
  readonly bits: SpliceBits;
  /** Null if a bit is not proved: then nothing is held by state. */
  readonly stateBits: ProvedStateBits | null;
  readonly queues: readonly FairCpu[];
  readonly fairSchedClass: GuestVirtual;
  /** Address of `__cpu_active_mask`. */
  readonly activeMask: GuestVirtual;
  /** Address of `sched_uclamp_used`; undefined where queues do not count by clamp. */
  readonly uclampUsed: GuestVirtual | undefined;
  /** TICK_NSEC, ns. */
  readonly tickNsec: bigint;
  /** How to tell from a stack where its thread was preempted. */
  readonly wayOut: WayOut;
}

/**
 * Why threads in a kernel's fair queues cannot be held by splice or state, judged by its members; null where they can,
 * which takes SMP.
 */
export function fairQueuesRefusal(layout: LayoutView): string | null {
  const [curr, donor] = [optionalField(layout, 'rq', 'curr'), optionalField(layout, 'rq', 'donor')];
  if (donor !== undefined && donor.offset !== curr?.offset)
    return 'rq.donor: a thread may run on the account of another (CONFIG_SCHED_PROXY_EXEC)';
  const lack =
    lackOf(layout, NEEDED) ??
    (hasGroups(layout) ? lackOf(layout, NEEDED_BY_GROUPS) : undefined) ??
    (hasMember(layout, 'cfs_rq', 'avg_vruntime') ? undefined : lackOf(layout, CFS));
  if (lack !== undefined) return `its layout has no ${lack}`;
  const hasPreemptCount =
    hasMember(layout, 'pcpu_hot', 'preempt_count') || layout.symbol('__preempt_count') !== undefined;
  if (!hasPreemptCount) return 'its layout has no pcpu_hot.preempt_count or symbol __preempt_count';
  const symbols: readonly SymbolName[] = hasGroups(layout) ? [...SYMBOLS, 'root_task_group'] : SYMBOLS;
  const unknown = symbols.filter((name) => layout.symbol(name) === undefined);
  if (unknown.length > 0) return `its layout has no symbol ${unknown.join(', ')}`;
  try {
    fairMembers(layout);
    return null;
  } catch (error) {
    if (error instanceof DomschedError) return error.message;
    throw error;
  }
}

/** Members that a kernel needs for edits of its fair queues. */
const NEEDED: MembersByStruct = { cfs_rq: ['leftmost', 'root'] };

/** The same for queues of groups. */
const NEEDED_BY_GROUPS: MembersByStruct = {
  cfs_rq: ['leaf_cfs_rq_list'],
  sched_entity: ['my_q', 'runnable_weight'],
  task_group: ['shares'],
  rq: ['tmp_alone_branch'],
};

/** The same for kernels without EEVDF. */
const CFS: MembersByStruct = { cfs_rq: ['min_vruntime'] };

const SYMBOLS: readonly SymbolName[] = ['__cpu_active_mask', 'sched_prio_to_weight'];

/** Why threads cannot be taken out of a kernel's fair queues, judged by its members; null where they can. */
export function spliceRefusal(layout: LayoutView): string | null {
  if (!canSpliceFair(layout)) return 'its fair server counts the threads that come and go by itself';
  if (hasMember(layout, 'cfs_rq', 'h_curr') && !hasSingleQueue(layout))
    return 'cfs_rq.h_curr: the tasks of all groups are in one queue, and it has no sched_entity.h_load';
  if (!hasMember(layout, 'rq', 'uclamp')) return null;
  const isKnown =
    hasMember(layout, 'static_key', 'enabled') && layout.symbol('sched_uclamp_used') !== undefined;
  return isKnown
    ? null
    : 'rq.uclamp counts its queued threads besides (CONFIG_UCLAMP_TASK), and whether it is in use its layout does not say (sched_uclamp_used): extract it again';
}

/**
 * Whether a thread may be taken out of a queue, or put into it, without telling its fair server ("sched/fair: Add
 * trivial fair server", 6.12). At first a queue's first thread started the server and its last one stopped it, without
 * a check whether the server ran; doing so twice in a row counts its bandwidth twice and warns. "sched/deadline: Fix
 * dl_server behaviour", 6.18 and stable kernels, starts it only if it does not run and lets it end by itself; that
 * change removed `server_has_tasks`.
 */
export function canSpliceFair(layout: Pick<LayoutView, 'has'>): boolean {
  return !hasMember(layout, 'rq', 'fair_server') || !hasMember(layout, 'sched_dl_entity', 'server_has_tasks');
}
