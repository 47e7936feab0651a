import { projectDirectory } from '../../../../kernels/paths.ts';
import type { AnyLayout, MemberLayout } from '../../../../runtime/layout/types.ts';
import { LayoutView } from '../../../../runtime/layout/view.ts';

/** Members of 7.3 that a kernel of `generated/` lacks: each in the place of one that nothing here reads. */
const MORE: Readonly<Record<string, Readonly<Record<string, { in: string; as?: string }>>>> = {
  cfs_rq: { h_curr: { in: 'last_h_load_update', as: 'curr' }, sum_shift: { in: 'runtime_enabled' } },
  sched_entity: { max_slice: { in: 'exec_start' }, h_load: { in: 'sum_exec_runtime', as: 'load' } },
};

/**
 * The layout of a kernel of `generated/` as it would be after "sched/eevdf: Move to a single runqueue" (7.3), and
 * "sched/fair: Increase weight bits for avg_vruntime" (7.1) and "sched/fair: Fix lag clamp" (6.19) before it.
 */
export async function singleQueue(release: string): Promise<LayoutView> {
  const { layout } = (await import(`${projectDirectory}/generated/${release}/index.ts`)) as {
    layout: AnyLayout;
  };
  const module: Record<string, unknown> = { ...layout };
  for (const [struct, members] of Object.entries(MORE)) {
    const old = layout[struct] as unknown as Record<string, MemberLayout>;
    const more = Object.entries(members).map(([name, { in: place, as = place }]) => {
      const { offset } = old[place]!;
      return [name, { ...old[as]!, offset }];
    });
    const gone = Object.values(members).map(({ in: place }) => place);
    // Two words: those of a weight are where the sum of run times and the word behind it are.
    if (struct === 'sched_entity') gone.push('prev_sum_exec_runtime');
    const kept = Object.entries(old).filter(([name]) => !gone.includes(name));
    module[struct] = { ...Object.fromEntries(kept), ...Object.fromEntries(more) };
  }
  return new LayoutView(module as unknown as AnyLayout);
}
