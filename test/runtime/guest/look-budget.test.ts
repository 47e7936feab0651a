import test from 'ava';
import { Guest } from '../../../runtime/guest/guest.ts';
import { LookBudget } from '../../../runtime/guest/look-budget.ts';
import { CFS_KERNEL, defaultTasks, knownKernel, SyntheticGuest, type SyntheticTask } from './synthetic.ts';

const NO_LIMIT = Number.POSITIVE_INFINITY;

async function withTasks(count: number) {
  const more = Array.from({ length: count }, (_, i): SyntheticTask => {
    return { pid: 100 + i, comm: 'many', cpu: 0, state: 'sleeping', ppid: 1 };
  });
  const { domain } = await SyntheticGuest.make({ kernel: CFS_KERNEL, tasks: [...defaultTasks(), ...more] });
  return Guest.attach(domain, [knownKernel(CFS_KERNEL)]);
}

test('a look that takes longer than it may ends, by its own clock', (t) => {
  let now = 100;
  let wall = 0;
  let asked = 0;
  const own = () => {
    asked += 1;
    return now;
  };
  const budget = new LookBudget({ lookMs: 5, bytes: NO_LIMIT }, 'one', own, () => wall);
  wall = 5;
  now = 105;
  t.notThrows(() => budget.checkTime());
  t.is(asked, 1, 'it cannot have used more time than has passed');
  wall = 80;
  t.notThrows(() => budget.checkTime(), 'others had the CPU');
  now = 105.1;
  t.throws(() => budget.checkTime(), { code: 'over-budget', message: /one: .* more than 5 ms.*set aside/ });
});

test('a guest with more than it may have is not read, and one within its limits is', async (t) => {
  const guest = await withTasks(200);
  const within = (bytes: number) => ({ limits: { lookMs: NO_LIMIT, bytes } });
  t.throws(() => guest.snapshot(within(16 * 1024)), { code: 'over-budget', message: /more than 0 MiB/ });
  t.is(guest.domain.pause?.depth, 0);
  t.true(guest.snapshot(within(8 * 2 ** 20)).processes.length > 200);
});

test('a look that was ended for its time leaves a guest that can be read', async (t) => {
  const guest = await withTasks(200);
  const all = guest.snapshot().processes.length;
  // Less than nothing: every look takes longer.
  for (const look of [() => guest.snapshot({ limits }), () => guest.processesAlone({ limits })])
    t.throws(look, { code: 'over-budget', message: /more than -1 ms/ });
  t.is(guest.snapshot().processes.length, all);
});

const limits = { lookMs: -1, bytes: NO_LIMIT };
