import type { LayoutView } from '../layout/view.ts';
import { field, type Place, requiredField } from './fields.ts';
import { Shape } from './shape.ts';

/** What is read of a `signal_struct`, the part of a process that its threads share. -1: no such member. */
export interface SignalPlan {
  readonly shape: Shape;
  /** Of the list's head in the structure; -1 where threads form a ring without one. */
  readonly threadHeadOffset: number;
  readonly threadHead: number;
  readonly nrThreads: number;
  /** CPU time of threads that have ended, in the unit of the tasks' own. */
  readonly utime: number;
  readonly stime: number;
  /** ns */
  readonly runtime: number;
  readonly prevUtime: number;
  readonly prevStime: number;
}

/** @throws DomschedError `layout-absent-member` */
export function planSignal(layout: LayoutView): SignalPlan {
  const optional = (path: string) => field(layout, 'signal_struct', path);
  const fields = {
    threadHead: optional('thread_head'),
    nrThreads: optional('nr_threads'),
    utime: requiredField(layout, 'signal_struct', 'utime'),
    stime: requiredField(layout, 'signal_struct', 'stime'),
    // "timers: fix itimer/many thread hang", 2.6.28: sum_sched_runtime; before, sched_time.
    runtime: optional('sum_sched_runtime') ?? optional('sched_time'),
    prevUtime: optional('prev_cputime.utime'),
    prevStime: optional('prev_cputime.stime'),
  };
  const shape = new Shape(Object.values(fields));
  const at = (found: Place | undefined) => shape.at(found);
  return {
    shape,
    threadHeadOffset: fields.threadHead?.offset ?? -1,
    threadHead: at(fields.threadHead),
    nrThreads: at(fields.nrThreads),
    utime: at(fields.utime),
    stime: at(fields.stime),
    runtime: at(fields.runtime),
    prevUtime: at(fields.prevUtime),
    prevStime: at(fields.prevStime),
  };
}
