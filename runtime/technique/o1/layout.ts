import type { Field } from '../../edit/member.ts';
import type { GuestVirtual } from '../../memory/address.ts';

export { type Field, follow, get, put } from '../../edit/member.ts';

/** What edits of an O(1) run queue need of the guest's layout, resolved once. Names are the kernel's. */
export interface O1Layout {
  readonly rq: {
    /** `lock.raw_lock.slock`. Absent from UP kernels, which therefore can't be edited. */
    readonly slock: Field | null;
    readonly nr_running: Field;
    readonly curr: Field;
    readonly idle: Field;
    readonly active: Field;
    readonly expired: Field;
    /** Offset of the two `prio_array`s, one after the other. */
    readonly arrays: number;
    /** Sum of the linked tasks' weights: "[PATCH] sched: implement smpnice", 2.6.18. */
    readonly raw_weighted_load: Field | null;
  };
  readonly prio_array: {
    readonly size: number;
    readonly nr_active: Field;
    /** First word of the bitmap: a bit per priority, and a sentinel above the last. */
    readonly bitmap: Field;
    /** Offset of the list heads. */
    readonly queue: number;
    /** Length of `queue`, MAX_PRIO: 140. */
    readonly priorities: number;
  };
  readonly task_struct: {
    readonly state: Field;
    readonly prio: Field;
    readonly static_prio: Field;
    /** Offset of the list node. */
    readonly run_list: number;
    readonly array: Field;
    readonly thread_info: Field;
    /** What the task weighs in `raw_weighted_load`, since the same change. */
    readonly load_weight: Field | null;
    /** `prio` without what a lock lends: "[PATCH] pi-futex: scheduler support for pi", 2.6.18. */
    readonly normal_prio: Field | null;
    readonly ptrace: Field;
  };
  readonly thread_info: { readonly flags: Field; readonly cpu: Field };
  readonly list_head: { readonly size: number; readonly next: Field; readonly prev: Field };
}

/** One CPU's run queue in the guest. */
export interface O1Queue {
  readonly cpu: number;
  /** Of the `runqueue`. */
  readonly address: GuestVirtual;
}
