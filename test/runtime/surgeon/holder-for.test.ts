import test from 'ava';
import type { Guest } from '../../../runtime/guest/guest.ts';
import type { AnyLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { waysOfLayout } from '../../../runtime/surgeon/ways.ts';
import { CFS_KERNEL } from '../guest/synthetic.ts';

test('a kernel without control groups: what its layout lacks is said, and what brings it', async (t) => {
  const { layout } = (await import(`../../../generated/${CFS_KERNEL}/index.ts`)) as { layout: AnyLayout };
  const { frozen, ...task_struct } = layout.task_struct as unknown as Record<string, unknown>;
  t.truthy(frozen);
  const without = new LayoutView({ ...layout, task_struct } as unknown as AnyLayout);
  const said = /no task_struct\.frozen.*CONFIG_CGROUPS/;
  t.regex(waysOfLayout(without).refused.all ?? '', said);
  // A kernel is chosen by its structures before anything of the guest is read.
  const guest = { layout: without, queuesUnknown: undefined } as unknown as Guest;
  t.throws(() => holderFor(guest), { code: 'refused', message: said });
});
