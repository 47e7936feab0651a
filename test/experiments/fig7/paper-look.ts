import type { Guest } from '../../../runtime/guest/guest.ts';
import { percpuVariable } from '../../../runtime/guest/percpu.ts';
import { membersOf } from '../../../runtime/layout/members.ts';
import type { PaperWay } from '../paper-way.ts';

/** Nothing that is longer is a tree of a guest of these experiments. */
const MOST = 100;

/** A ready task, as the paper's process list had it. */
export interface PaperTask {
  readonly pid: number;
  readonly comm: string;
  readonly staticPrio: number;
}

/**
 * One look at the run queue of a guest's first CPU in the paper's way: word by word, each translated and mapped anew.
 * The words are few: the task on the CPU, the tree of the others, and of each its pid, name and priority.
 */
export function paperLook(guest: Guest, paper: PaperWay): PaperTask[] {
  const { layout } = guest.kernel;
  const rq = membersOf(layout, 'rq', ['curr', 'cfs']);
  const { root } = membersOf(layout, 'cfs_rq', ['root'], rq.cfs.offset);
  const node = membersOf(layout, 'rb_node', ['rb_left', 'rb_right']);
  const entity = membersOf(layout, 'sched_entity', ['run_node']);
  const task = membersOf(layout, 'task_struct', ['se', 'pid', 'comm', 'static_prio']);
  const queue = percpuVariable(guest.kernel, 'runqueues', guest.cpus[0]!);
  const at = (base: bigint, { offset }: { readonly offset: number }) => paper.word(base + BigInt(offset));
  const inTree = BigInt(task.se.offset + entity.run_node.offset);
  const tasks = [at(queue, rq.curr)];
  const nodes = [at(queue, root)];
  for (let i = 0; i < nodes.length && i < MOST; i++) {
    if (nodes[i] === 0n) continue;
    tasks.push(nodes[i]! - inTree);
    nodes.push(at(nodes[i]!, node.rb_left), at(nodes[i]!, node.rb_right));
  }
  return tasks.map((address) => {
    const name = Buffer.alloc(16);
    name.writeBigUInt64LE(at(address, task.comm));
    name.writeBigUInt64LE(at(address + 8n, task.comm), 8);
    return {
      pid: Number(BigInt.asIntN(32, at(address, task.pid))),
      comm: name.toString('latin1').replace(/\0.*$/s, ''),
      staticPrio: Number(BigInt.asIntN(32, at(address, task.static_prio))),
    };
  });
}
