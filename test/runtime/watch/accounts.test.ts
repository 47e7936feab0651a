import test from 'ava';
import { Guest } from '../../../runtime/guest/guest.ts';
import { Accounts } from '../../../runtime/watch/accounts.ts';
import { CFS_KERNEL, knownKernel, O1_KERNEL, SyntheticGuest } from '../guest/synthetic.ts';

const TASKS = [
  { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' },
  { pid: 10, comm: 'postgres', cpu: 0, state: 'running', ppid: 1, runtime: 5e9 },
  { pid: 11, comm: 'worker', cpu: 1, state: 'ready', ppid: 1, tgid: 10, runtime: 2e9 },
] as const;

async function attached(kernel: string) {
  const made = await SyntheticGuest.make({ kernel, name: 'db', tasks: TASKS });
  const guest = await Guest.attach(made.domain, [knownKernel(kernel)]);
  const sampleAll = async () => {
    const { processes } = await guest.take({ threads: true });
    return new Accounts().sample([{ identity: made.domain.identity, guest, processes }]);
  };
  const sample = async () => (await sampleAll()).domains[0]!;
  return { made, sample, sampleAll };
}

test('a thread’s waits are those that ended and the one that lasts, by its queue’s clock', async (t) => {
  const { made, sample } = await attached(CFS_KERNEL);
  const times = async () =>
    (await sample()).threads.map(({ pid, comm, cpu, ranNs, waitedNs, ready }) => [
      pid,
      comm,
      cpu,
      ranNs,
      waitedNs,
      ready,
    ]);
  t.deepEqual(
    await times(),
    [
      [1, 'init', 0, 0, undefined, false],
      [10, 'postgres', 0, 5e9, undefined, false],
      [10, 'postgres', 1, 2e9, undefined, true],
    ],
    'a kernel that accounts no wait of anybody has its accounting off',
  );
  const put = (pid: number, member: string, value: bigint) =>
    made.put(made.tasks.get(pid)!, 'task_struct', member, value);
  put(10, 'sched_info.run_delay', 300n);
  put(11, 'sched_info.run_delay', 7_000n);
  put(11, 'sched_info.last_queued', 1_000_000n);
  made.put(made.queues[1]!, 'rq', 'clock', 1_500_000n);
  t.deepEqual(
    (await times()).map(([, , , , waited]) => waited),
    [0, 300, 507_000],
  );
  // A clock that is behind (the vCPU has not run since) takes nothing away.
  made.put(made.queues[1]!, 'rq', 'clock', 1n);
  t.deepEqual(
    (await times()).map(([, , , , waited]) => waited),
    [0, 300, 7_000],
  );
});

test('vCPUs are read at the moment of the sample, before what takes longer', async (t) => {
  const made = await SyntheticGuest.make({ kernel: CFS_KERNEL, name: 'db', tasks: TASKS });
  const guest = await Guest.attach(made.domain, [knownKernel(CFS_KERNEL)]);
  const { processes } = await guest.take({ threads: true });
  const { hostClock } = made.domain;
  const read: string[] = [];
  const readClock = hostClock.read.bind(hostClock);
  hostClock.read = () => {
    read.push('vCPUs');
    return readClock();
  };
  const watched = new Proxy(guest, {
    get: (target, key) => {
      if (key === 'cpus') read.push('guest');
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  new Accounts().sample([{ identity: made.domain.identity, guest: watched, processes }]);
  t.deepEqual(read.slice(0, 2), ['vCPUs', 'guest']);
  t.is(read.filter((what) => what === 'vCPUs').length, 1);
});

test('a kernel without the accounting: who is ready is known, waits are not', async (t) => {
  const { sample } = await attached(O1_KERNEL);
  const { threads, cpus, error } = await sample();
  t.is(error, undefined);
  t.deepEqual(cpus, [0, 1]);
  t.true(threads.every(({ waitedNs }) => waitedNs === undefined));
  t.deepEqual(
    threads.map(({ ready }) => ready),
    [false, false, true],
  );
});

test('in a dom0 a thread of the host is where the hypervisor has its CPU, as vCPUs of guests are', async (t) => {
  const { made, sampleAll } = await attached(CFS_KERNEL);
  const cpusOf = async () => new Set((await sampleAll()).threads.map(({ cpu }) => cpu));
  const own = await cpusOf();
  made.domain.hostClock.machineCpu = (cpu) => cpu + 4096;
  for (const cpu of await cpusOf()) t.true(cpu >= 4096);
  made.domain.hostClock.machineCpu = () => undefined;
  for (const cpu of await cpusOf()) t.true(cpu < 4096);
  t.true(own.size > 0);
});
