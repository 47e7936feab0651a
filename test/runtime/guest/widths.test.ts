import test from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { O1_STATE_BITS, STATE_BITS } from '../../../runtime/guest/state.ts';
import { taskSlots } from '../../../runtime/guest/task-slots.ts';
import { elementsOf } from '../../../runtime/layout/element.ts';
import type { AnyLayout, MemberLayout } from '../../../runtime/layout/types.ts';
import { narrow, narrowedLayout, type Rest } from './narrowed.ts';
import { CFS_KERNEL, EEVDF_KERNEL, knownKernel, O1_KERNEL, SyntheticGuest } from './synthetic.ts';

/** Structures whose numbers a look reads; those that they embed are narrowed with them. */
const STRUCTS = [
  ...['task_struct', 'thread_info', 'signal_struct', 'sched_entity', 'prev_cputime'],
  ...['rq', 'cfs_rq', 'rt_rq', 'dl_rq', 'prio_array'],
];
/** Numbers that the synthetic guest needs in full: flags, and times in ns. */
const KEPT = ['flags', 'start_boottime', 'start_time', 'state', '__state', 'static_prio', 'prio', 'bitmap'];

for (const kernel of [O1_KERNEL, CFS_KERNEL, EEVDF_KERNEL]) {
  for (const divisor of [2, 4]) {
    test(`${kernel}: every number is read as wide as the layout says, with 1/${divisor} of its bytes and garbage beside it`, async (t) => {
      const plain = await SyntheticGuest.make({ kernel });
      const expected = look(await Guest.attach(plain.domain, [knownKernel(kernel)]));
      const { layout, narrowed } = await narrowedLayout(kernel, (struct, name, member) =>
        STRUCTS.includes(struct) && !KEPT.includes(name) ? narrow(member, divisor) : undefined,
      );
      t.true(narrowed.get('task_struct')!.length > 50);
      const synthetic = await SyntheticGuest.make({ kernel, layout });
      spoil(synthetic, narrowed);
      const guest = await Guest.attach(synthetic.domain, [
        { ...knownKernel(kernel), load: async () => layout },
      ]);
      t.deepEqual(look(guest), expected);
    });
  }
}

test('since 7.2 a task has on_rq, on_cpu and is_blocked in one byte each', async (t) => {
  const kernel = EEVDF_KERNEL;
  const { layout, narrowed } = await narrowedLayout(kernel, (struct, name, member) =>
    struct === 'task_struct' && name === 'on_rq' ? narrow(member, 4) : undefined,
  );
  t.is(layout.field('task_struct', 'on_rq').size, 1);
  const synthetic = await SyntheticGuest.make({ kernel, layout });
  // A stopper that sleeps, as it does but for moments: its on_rq decides whether it counts.
  for (const queue of synthetic.queues) synthetic.put(queue, 'rq', 'stop', synthetic.tasks.get(2)!);
  const known = [{ ...knownKernel(kernel), load: async () => layout }];
  const expected = look(await Guest.attach(synthetic.domain, known));
  spoil(synthetic, narrowed);
  t.deepEqual(look(await Guest.attach(synthetic.domain, known)), expected);
});

test("states have the numbers of 4.14 also while the member has its old name, as in 5.10's", async (t) => {
  const module = (await import(`../../../generated/${CFS_KERNEL}/index.ts`)) as { layout: AnyLayout };
  const { __state } = module.layout.task_struct as unknown as Record<string, MemberLayout>;
  const { layout } = await narrowedLayout(
    CFS_KERNEL,
    (struct, name, member) =>
      struct === 'task_struct' && name === '__state' ? { ...member, type: 'gone' } : undefined,
    { task_struct: { state: __state! } },
    ({ type }) => type !== 'gone',
  );
  t.false(layout.has('task_struct', '__state'));
  t.deepEqual(taskSlots(layout).stateBits, STATE_BITS);
  t.deepEqual(taskSlots(await knownKernel(O1_KERNEL).load()).stateBits, O1_STATE_BITS);
});

test('a number that no register holds is refused, not read in part', async (t) => {
  const kernel = EEVDF_KERNEL;
  const { layout } = await narrowedLayout(kernel, (struct, name, member) =>
    struct === 'task_struct' && name === 'on_rq' ? { ...member, size: 3 } : undefined,
  );
  const synthetic = await SyntheticGuest.make({ kernel });
  const error = await t.throwsAsync(
    Guest.attach(synthetic.domain, [{ ...knownKernel(kernel), load: async () => layout }]),
    { instanceOf: DomschedError },
  );
  t.is(error.code, 'layout-absent-member');
});

/** All that a look finds. */
function look(guest: Guest): unknown {
  const { processes, runQueues } = guest.snapshot({ threads: true });
  guest.detach();
  return { processes: processes.map(plain), runQueues: runQueues.map(plain) };
}

function plain(found: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(found));
}

/** Fills what narrowed members leave of their old bytes. */
function spoil(guest: SyntheticGuest, narrowed: ReadonlyMap<string, readonly Rest[]>): void {
  const within = (address: bigint, struct: string): void => {
    for (const { offset, size } of narrowed.get(struct) ?? [])
      guest.image.store(guest.physical(address) + offset, new Uint8Array(size).fill(0xa5));
    for (const member of guest.layout.requireStruct(struct).members.values()) {
      if (member.struct === undefined || !guest.layout.has(member.struct) || member.kind === 'pointer')
        continue;
      for (let i = 0; i < (elementsOf(member) ?? 1); i++)
        within(address + BigInt(member.offset + (member.element?.size ?? 0) * i), member.struct);
    }
  };
  for (const { address, struct } of guest.objects) within(address, struct);
}
