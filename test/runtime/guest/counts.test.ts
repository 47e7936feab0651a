import test from 'ava';
import { Guest } from '../../../runtime/guest/guest.ts';
import { CFS_KERNEL, knownKernel, O1_KERNEL, SyntheticGuest, type SyntheticTask } from './synthetic.ts';

/** Copies of a guest's objects outgrow their room at some of these, in the middle of every kind of look. */
const COUNTS = 300;

for (const kernel of [O1_KERNEL, CFS_KERNEL]) {
  test(`${kernel}: guests with 1 to ${COUNTS} processes are attached and listed`, async (t) => {
    const known = [knownKernel(kernel)];
    const tasks: SyntheticTask[] = Array.from({ length: COUNTS }, (_, index) => ({
      pid: index + 1,
      comm: `task-${index + 1}`,
      cpu: index % 2,
      state: 'sleeping',
      // Chains and stars of parents, most of them listed after their children.
      ppid: index === 0 ? 0 : index % 3 === 0 ? 1 : ((index * 7) % COUNTS) + 1,
    }));
    const synthetic = await SyntheticGuest.make({ kernel, tasks });
    const node = synthetic.offset('task_struct', 'tasks');
    const nodes = [synthetic.initTask, ...synthetic.tasks.values()].map((task) => task + node);
    const model = tasks.map(({ pid, ppid, cpu, comm }) => [pid, ppid, cpu, comm]);
    for (let count = 1; count <= COUNTS; count++) {
      synthetic.ring(...nodes.slice(0, count + 1));
      const guest = await Guest.attach(synthetic.domain, known);
      const seen = guest.snapshot().processes.map(({ pid, ppid, cpu, comm }) => [pid, ppid, cpu, comm]);
      t.deepEqual(seen, model.slice(0, count), `${count} processes`);
      guest.detach();
    }
  });
}
