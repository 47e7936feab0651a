import test from 'ava';
import { Draft } from '../../../runtime/edit/draft.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import type { AnyLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { waysOf, waysOfLayout } from '../../../runtime/surgeon/ways.ts';
import { proved } from '../guest/proved.ts';
import { CFS_KERNEL, EEVDF_KERNEL, knownKernel, SyntheticGuest } from '../guest/synthetic.ts';

/** A guest whose threads do not show whether they are in the freezer's trap. */
async function untrapped(kernel: string) {
  const { layout } = (await import(`../../../generated/${kernel}/index.ts`)) as { layout: AnyLayout };
  const { frozen, ...task_struct } = layout.task_struct as unknown as Record<string, unknown>;
  if (frozen === undefined) throw new Error(`${kernel} has no task_struct.frozen to leave out`);
  const without = new LayoutView({ ...layout, task_struct } as unknown as AnyLayout);
  const synthetic = await SyntheticGuest.make({ kernel });
  const guest = await Guest.attach(synthetic.domain, [{ ...knownKernel(kernel), load: async () => without }]);
  return { synthetic, guest, layout: without };
}

const SAID = /no task_struct\.frozen.*CONFIG_CGROUPS/;

for (const kernel of [CFS_KERNEL, EEVDF_KERNEL]) {
  test(`${kernel} whose threads cannot be parked: splice and state stand by themselves, and park says what is missing`, async (t) => {
    const { synthetic, guest, layout } = await untrapped(kernel);
    t.deepEqual(waysOfLayout(layout).techniques, ['splice', 'state']);
    t.regex(waysOfLayout(layout).refused.park ?? '', SAID);
    // Only parking needs these.
    const holder = holderFor(guest, proved('JOBCTL_TRAP_FREEZE', 'TASK_STOPPED', 'TASK_TRACED'));
    t.deepEqual(holder.techniques, ['splice', 'state']);
    t.deepEqual(holder.automatic, ['splice', 'state']);
    t.deepEqual([...holder.refused!.keys()], ['park']);
    const surgeon = new Surgeon(synthetic.domain as never, guest, holder);
    const key = guest.processesAlone().processes.find(({ pid }) => pid === 40)!;
    const message = new RegExp(
      `no park, but splice, state: park is refused since .*${SAID.source}.*nothing was changed`,
    );
    await t.throwsAsync(surgeon.hold(key, { techniques: ['park'] }), { code: 'refused', message });
    t.is(synthetic.domain.recorder.count('write'), 0);
  });

  test(`${kernel} whose threads cannot be parked: each way is refused for its own reason, and all for theirs together`, async (t) => {
    const { guest } = await untrapped(kernel);
    for (const name of ['TASK_PARKED', 'TASK_NORMAL', 'PREEMPT_NEED_RESCHED', 'trap state']) {
      const { techniques, refused } = holderFor(guest, proved(name));
      t.deepEqual(techniques, ['splice'], name);
      t.is(refused!.get('state'), `${name} is not proved`);
    }
    const withoutSplice = holderFor(guest, proved('PELT_MIN_DIVIDER'));
    t.deepEqual(withoutSplice.techniques, ['state']);
    t.is(withoutSplice.refused!.get('splice'), 'PELT_MIN_DIVIDER is not proved');
    for (const [lacking, nor] of [
      [['TIF_NEED_RESCHED'], 'nor by splice or state: TIF_NEED_RESCHED is not proved'],
      [
        ['PELT_MIN_DIVIDER', 'TASK_PARKED'],
        'nor by splice: PELT_MIN_DIVIDER is not proved; nor by state: TASK_PARKED is not proved',
      ],
    ] as const) {
      const message = new RegExp(
        `can be listed, but not held: .*${SAID.source}.*; ${nor}; nothing was changed`,
      );
      t.throws(() => holderFor(guest, proved(...lacking)), { code: 'refused', message });
    }
  });
}

for (const kernel of [CFS_KERNEL, EEVDF_KERNEL]) {
  test(`${kernel} that checks the types of functions (kCFI): nothing that needs a forged call, and splice all the same`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
    t.deepEqual(holderFor(guest, proved()).techniques, ['park', 'splice', 'state']);
    // `mov $hash,%eax` and padding, 16 bytes before the function.
    const before = synthetic.physical(synthetic.symbol('process_timeout')) - 16;
    synthetic.image.store(before, Uint8Array.from([0xb8, 1, 2, 3, 4, ...new Array<number>(11).fill(0x90)]));
    const holder = holderFor(guest, proved());
    t.deepEqual(holder.techniques, ['splice']);
    t.deepEqual(holder.automatic, ['splice']);
    t.deepEqual([...holder.refused!.keys()].sort(), ['park', 'state']);
    for (const reason of holder.refused!.values()) t.regex(reason, /checks the types of functions.*kCFI/);
    await t.notThrowsAsync(holder.prepare!(synthetic.domain, new Draft(guest.space)), 'splice calls nothing');
    const surgeon = new Surgeon(synthetic.domain as never, guest, holder);
    const key = guest.processesAlone().processes.find(({ pid }) => pid === 40)!;
    const message = /no park, but splice: park is refused since .*kCFI.*nothing was changed/;
    await t.throwsAsync(surgeon.hold(key, { techniques: ['park'] }), { code: 'refused', message });
    t.throws(() => holderFor(guest, proved('PELT_MIN_DIVIDER')), {
      code: 'refused',
      message: /kCFI.*; nor by splice: PELT_MIN_DIVIDER is not proved; nor by state: .*kCFI/,
    });
    t.is(synthetic.domain.recorder.count('write'), 0);
  });
}

/** The layout of a kernel whose tasks have no byte that no member covers. */
async function full(kernel: string): Promise<LayoutView> {
  const { layout } = (await import(`../../../generated/${kernel}/index.ts`)) as { layout: AnyLayout };
  const { comm } = layout.task_struct as unknown as Record<string, object>;
  const filled = (struct: object) => ({ ...struct, filler: { ...comm, offset: 0, size: sizeIn(struct) } });
  const { task_struct, sched_entity } = layout as unknown as Record<string, object>;
  const structs = { task_struct: filled(task_struct!), sched_entity: filled(sched_entity!) };
  return new LayoutView({ ...layout, ...structs } as unknown as AnyLayout);
}

const sizeIn = (struct: object) => (struct as { $size: number }).$size;

for (const kernel of [CFS_KERNEL, EEVDF_KERNEL]) {
  test(`${kernel} whose tasks have no room for the work that parks them: splice and state stand by themselves`, async (t) => {
    const layout = await full(kernel);
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, [
      { ...knownKernel(kernel), load: async () => layout },
    ]);
    for (const { techniques, refused } of [waysOfLayout(layout), waysOf({}, holderFor(guest, proved()))]) {
      t.deepEqual(techniques, ['splice', 'state']);
      t.deepEqual(refused, { park: 'task_struct has no padding for a task work' });
    }
  });
}
