import type { LayoutView } from '../layout/view.ts';
import { field } from './fields.ts';
import { type PointerSlot, Shape, type Slot } from './shape.ts';

/** What is read of a `thread_info` that stands apart from its task. Undefined: no such member. */
export interface ThreadInfoPlan {
  readonly shape: Shape;
  readonly task: PointerSlot | undefined;
  readonly cpu: Slot | undefined;
}

export function planThreadInfo(layout: LayoutView): ThreadInfoPlan {
  const fields = { task: field(layout, 'thread_info', 'task'), cpu: field(layout, 'thread_info', 'cpu') };
  const shape = new Shape(Object.values(fields));
  return { shape, task: shape.pointer(fields.task), cpu: shape.number(fields.cpu) };
}
