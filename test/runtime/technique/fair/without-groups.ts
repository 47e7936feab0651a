import { projectDirectory } from '../../../../kernels/paths.ts';
import type { AnyLayout } from '../../../../runtime/layout/types.ts';
import { LayoutView } from '../../../../runtime/layout/view.ts';

/** Members that are inside `#ifdef CONFIG_FAIR_GROUP_SCHED` or CONFIG_CGROUPS (kernel/sched/sched.h, include/linux/sched.h). */
const OF_GROUPS: Readonly<Record<string, readonly string[]>> = {
  rq: ['leaf_cfs_rq_list', 'tmp_alone_branch'],
  cfs_rq: ['rq', 'on_list', 'leaf_cfs_rq_list', 'tg', 'idle', 'throttled', 'throttle_count'],
  sched_entity: ['depth', 'parent', 'cfs_rq', 'my_q', 'runnable_weight'],
  task_struct: ['sched_task_group', 'frozen', 'cgroups', 'cg_list'],
};

/** The layout of a kernel of `generated/` as it would be without control groups. */
export async function withoutGroups(release: string): Promise<LayoutView> {
  const { layout } = (await import(`${projectDirectory}/generated/${release}/index.ts`)) as {
    layout: AnyLayout;
  };
  const module: Record<string, unknown> = { ...layout };
  delete module.task_group;
  for (const [struct, members] of Object.entries(OF_GROUPS)) {
    const all = Object.entries(module[struct] as object).filter(([name]) => !members.includes(name));
    module[struct] = Object.fromEntries(all);
  }
  const { root_task_group: _, ...$symbols } = layout.$symbols as Record<string, unknown>;
  return new LayoutView({ ...module, $symbols } as unknown as AnyLayout);
}
