import { wordsOf } from '../../edit/member.ts';
import { lockOf } from '../../guest/locks.ts';
import { listCount, listLinks, membersOf, sizeOf } from '../../layout/members.ts';
import type { LayoutView } from '../../layout/view.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import type { O1Bits } from '../proved-bits.ts';

/** Members that edits of an O(1) run queue need, resolved once from the guest's layout. Names are the kernel's. */
export type O1Members = ReturnType<typeof o1Members>;

/** @throws DomschedError `layout-absent-member` */
export function o1Members(layout: LayoutView) {
  const { queue } = membersOf(layout, 'prio_array', ['queue']);
  return {
    rq: {
      lock: lockOf(layout, 'rq', 'lock'),
      ...wordsOf(layout, 'rq', ['nr_running', 'curr', 'idle', 'active', 'expired', 'raw_weighted_load?']),
      /** Offset of the two `prio_array`s, which follow each other. */
      ...wordsOf(layout, 'rq', ['arrays']),
    },
    prio_array: {
      ...wordsOf(layout, 'prio_array', ['nr_active', 'bitmap_word', 'queue']),
      size: sizeOf(layout, 'prio_array'),
      /** Length of `queue`, MAX_PRIO: 140. */
      priorities: listCount(queue, listLinks(layout)),
    },
    task_struct: {
      ...wordsOf(layout, 'task_struct', ['state', 'prio', 'static_prio', 'run_list', 'array', 'thread_info']),
      ...wordsOf(layout, 'task_struct', ['load_weight?', 'normal_prio?', 'ptrace']),
    },
    thread_info: wordsOf(layout, 'thread_info', ['flags', 'cpu']),
    list_head: { ...wordsOf(layout, 'list_head', ['next', 'prev']), size: sizeOf(layout, 'list_head') },
  };
}

/** What edits must know about one guest. */
export interface O1GuestFacts {
  readonly members: O1Members;
  readonly bits: O1Bits;
  /** Every run queue. */
  readonly queues: readonly O1Queue[];
  /** Timer ticks per second, which weights depend on; null for kernels without weights. */
  readonly hz: number | null;
}

/** One CPU's run queue in the guest. */
export interface O1Queue {
  readonly cpu: number;
  /** Address of its `runqueue`. */
  readonly address: GuestVirtual;
}
