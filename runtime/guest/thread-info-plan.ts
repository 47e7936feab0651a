import type { LayoutView } from '../layout/view.ts';
import { field } from './fields.ts';
import { Shape } from './shape.ts';

/** What is read of a `thread_info` that stands apart from its task. -1: no such member. */
export interface ThreadInfoPlan {
  readonly shape: Shape;
  readonly task: number;
  readonly cpu: number;
}

export function planThreadInfo(layout: LayoutView): ThreadInfoPlan {
  const fields = { task: field(layout, 'thread_info', 'task'), cpu: field(layout, 'thread_info', 'cpu') };
  const shape = new Shape(Object.values(fields));
  return { shape, task: shape.at(fields.task), cpu: shape.at(fields.cpu) };
}
