import type { LayoutView } from '../layout/view.ts';
import { field, listLayout, requiredField } from './fields.ts';
import { type LinkSlot, Shape, type Slot } from './shape.ts';

/** What is read of a `signal_struct`, the part of a process that its threads share. Undefined: no such member. */
export interface SignalPlan {
  readonly shape: Shape;
  /** Of the list's head in the structure; -1 where threads form a ring without one. */
  readonly threadHeadOffset: number;
  readonly threadHead: LinkSlot | undefined;
  /** CPU time of threads that have ended, in the unit of the tasks' own. */
  readonly utime: Slot;
  readonly stime: Slot;
  /** ns */
  readonly runtime: Slot | undefined;
  readonly prevUtime: Slot | undefined;
  readonly prevStime: Slot | undefined;
}

/** @throws DomschedError `layout-absent-member` */
export function planSignal(layout: LayoutView): SignalPlan {
  const optional = (path: string) => field(layout, 'signal_struct', path);
  const fields = {
    threadHead: optional('thread_head'),
    utime: requiredField(layout, 'signal_struct', 'utime'),
    stime: requiredField(layout, 'signal_struct', 'stime'),
    // "timers: fix itimer/many thread hang", 2.6.28: sum_sched_runtime; before, sched_time.
    runtime: optional('sum_sched_runtime') ?? optional('sched_time'),
    prevUtime: optional('prev_cputime.utime'),
    prevStime: optional('prev_cputime.stime'),
  };
  const shape = new Shape(Object.values(fields));
  return {
    shape,
    threadHeadOffset: fields.threadHead?.offset ?? -1,
    threadHead: shape.link(fields.threadHead, listLayout(layout)),
    utime: shape.number(fields.utime),
    stime: shape.number(fields.stime),
    runtime: shape.number(fields.runtime),
    prevUtime: shape.number(fields.prevUtime),
    prevStime: shape.number(fields.prevStime),
  };
}
