import { type Field, optionalWord, wordMember } from '../../edit/member.ts';
import type { LayoutView } from '../../layout/view.ts';
import type { O1Layout } from './layout.ts';

/**
 * Finds in a kernel's layout all that edits of O(1) run queues need.
 * @throws DomschedError `layout-absent-member`
 */
export function resolveO1Layout(layout: LayoutView): O1Layout {
  const required = (struct: string, path: string): Field => wordMember(layout, struct, path);
  const queue = layout.field('prio_array', 'queue');
  return {
    rq: {
      slock: optionalWord(layout, 'rq', 'lock.raw_lock.slock'),
      nr_running: required('rq', 'nr_running'),
      curr: required('rq', 'curr'),
      idle: required('rq', 'idle'),
      active: required('rq', 'active'),
      expired: required('rq', 'expired'),
      arrays: layout.field('rq', 'arrays').offset,
      raw_weighted_load: optionalWord(layout, 'rq', 'raw_weighted_load'),
    },
    prio_array: {
      size: layout.requireStruct('prio_array').size,
      nr_active: required('prio_array', 'nr_active'),
      bitmap: required('prio_array', 'bitmap[0]'),
      queue: queue.offset,
      priorities: queue.length ?? 0,
    },
    task_struct: {
      state: required('task_struct', 'state'),
      prio: required('task_struct', 'prio'),
      static_prio: required('task_struct', 'static_prio'),
      run_list: layout.field('task_struct', 'run_list').offset,
      array: required('task_struct', 'array'),
      // "[PATCH] rename thread_info to stack", 2.6.22: the same pointer under another name.
      thread_info: optionalWord(layout, 'task_struct', 'thread_info') ?? required('task_struct', 'stack'),
      load_weight: optionalWord(layout, 'task_struct', 'load_weight'),
      normal_prio: optionalWord(layout, 'task_struct', 'normal_prio'),
      ptrace: required('task_struct', 'ptrace'),
    },
    thread_info: { flags: required('thread_info', 'flags'), cpu: required('thread_info', 'cpu') },
    list_head: {
      size: layout.requireStruct('list_head').size,
      next: required('list_head', 'next'),
      prev: required('list_head', 'prev'),
    },
  };
}
