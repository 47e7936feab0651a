/** Kernels for one CPU (no CONFIG_SMP): their per-CPU variables are ordinary ones. */
import test from 'ava';
import { Guest } from '../../../runtime/guest/guest.ts';
import type { AnyLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import { CFS_KERNEL, EEVDF_KERNEL, knownKernel, SyntheticGuest } from './synthetic.ts';

/** Members inside `#ifdef CONFIG_SMP`, of those that are read (include/linux/sched.h, kernel/sched/sched.h). */
const OF_SMP: Readonly<Record<string, readonly string[]>> = {
  task_struct: ['on_cpu', 'wake_cpu', 'recent_used_cpu', 'nr_cpus_allowed', 'migration_pending', 'cpu'],
  thread_info: ['cpu'],
  rq: ['cpu', 'online', 'sd', 'rd'],
};
const SYMBOLS = ['__per_cpu_offset', 'nr_cpu_ids', '__cpu_online_mask'];

/** The layout of a kernel as it would be without CONFIG_SMP, with its run queue at the end of the image. */
async function forOneCpu(kernel: string, isLinked = true): Promise<LayoutView> {
  const { layout } = (await import(`../../../generated/${kernel}/index.ts`)) as { layout: AnyLayout };
  const module: Record<string, unknown> = { ...layout };
  for (const [struct, members] of Object.entries(OF_SMP)) {
    const all = Object.entries(module[struct] as object).filter(([name]) => !members.includes(name));
    module[struct] = Object.fromEntries(all);
  }
  const symbols = layout.$symbols as unknown as Record<string, bigint>;
  const left = Object.entries(symbols).filter(([name]) => !SYMBOLS.includes(name));
  const runqueues = isLinked ? symbols._end! - 0x2_0000n : symbols.runqueues!;
  const $symbols = { ...Object.fromEntries(left), runqueues };
  return new LayoutView({ ...module, $symbols, $percpu: [] } as unknown as AnyLayout);
}

for (const kernel of [CFS_KERNEL, EEVDF_KERNEL]) {
  test(`${kernel} for one CPU: its processes are listed, and its one queue is read`, async (t) => {
    const layout = await forOneCpu(kernel);
    const synthetic = await SyntheticGuest.make({
      kernel,
      layout,
      cpus: 1,
      tasks: [
        { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' },
        { pid: 40, ppid: 1, comm: 'runs', cpu: 0, state: 'running' },
        { pid: 41, ppid: 1, comm: 'waits', cpu: 0, state: 'ready' },
      ],
    });
    const guest = await Guest.attach(synthetic.domain, [
      { ...knownKernel(kernel), load: async () => layout },
    ]);
    t.deepEqual(
      guest.cpus.map(({ cpu, area }) => [cpu, area]),
      [[0, 0n]],
    );
    t.is(guest.queuesUnknown, undefined);
    const { processes } = guest.processesAlone();
    t.deepEqual(
      processes.map(({ pid, comm, state }) => [pid, comm, state]),
      [
        [1, 'init', 'sleeping'],
        [40, 'runs', 'running'],
        [41, 'waits', 'ready'],
      ],
    );
  });

  test(`${kernel}: without its table of areas, variables that are no ordinary ones are nowhere`, async (t) => {
    const layout = await forOneCpu(kernel, false);
    const smp = await SyntheticGuest.make({ kernel });
    await t.throwsAsync(Guest.attach(smp.domain, [{ ...knownKernel(kernel), load: async () => layout }]), {
      code: 'layout-absent-member',
      message: /__per_cpu_offset/,
    });
  });
}
