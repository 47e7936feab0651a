import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { Guest } from '../../../runtime/guest/guest.ts';
import { Hosts } from '../../../runtime/hypervisor/connect.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { FakeHost } from '../../../runtime/hypervisor/fake/host.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { Journal } from '../../../runtime/surgeon/journal.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { Watcher } from '../../../runtime/watch/watcher.ts';
import { fakeGuest } from '../daemon/fake-daemon.ts';
import {
  CFS_KERNEL,
  knownKernel,
  O1_KERNEL,
  SyntheticGuest,
  type SyntheticTask,
} from '../guest/synthetic.ts';

const TASKS: SyntheticTask[] = [
  { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' },
  { pid: 2, comm: 'kthreadd', cpu: 0, state: 'sleeping', kernel: true },
  { pid: 10, comm: 'web', cpu: 0, state: 'running', ppid: 1, runtime: 5e9 },
  { pid: 11, comm: 'db\x1b[2J', cpu: 0, state: 'ready', ppid: 1, runtime: 2e9 },
];
const known = [knownKernel(CFS_KERNEL), knownKernel(O1_KERNEL)];

async function scratchJournal(): Promise<Journal & AsyncDisposable> {
  const folder = await mkdtemp(path.join(tmpdir(), 'watcher-'));
  const dispose = () => rm(folder, { recursive: true, force: true });
  return Object.assign(new Journal(folder), { [Symbol.asyncDispose]: dispose });
}

test('a domain that cannot be read, or is another one now, is open no more', async (t) => {
  await using journal = await scratchJournal();
  const guest = await SyntheticGuest.make({ kernel: CFS_KERNEL, name: 'web', tasks: TASKS });
  const empty = new FakeDomain({ name: 'empty', id: 'empty' });
  const domains = [guest.domain, empty];
  const fake = new FakeHost(domains);
  let opened = 0;
  const open = fake.open.bind(fake);
  fake.open = (id) => {
    opened += 1;
    return open(id);
  };
  for (const { recorder } of domains) recorder.recording = true;
  const closed = () => domains.reduce((sum, { recorder }) => sum + recorder.count('close'), 0);
  const watcher = new Watcher(new Hosts([fake]), known, journal);
  for (let look = 1; look <= 3; look++) {
    await watcher.tick();
    t.is(opened - closed(), 1, 'that of the guest alone');
  }
  const link = guest.initTask + guest.offset('task_struct', 'tasks');
  const whole = guest.image.load(guest.physical(link), 8);
  guest.word(link, 0x1234n);
  const [web] = (await watcher.tick()).domains;
  t.truthy(web!.error);
  t.is(opened - closed(), 0);
  t.truthy((await watcher.tick()).domains[0]!.error);
  t.is(opened - closed(), 0);
  guest.image.store(guest.physical(link), whole);
  t.is((await watcher.tick()).domains[0]!.error, undefined);
  t.is(opened - closed(), 1);
  fake.list = async () => [];
  await watcher.tick();
  t.is(opened - closed(), 0);
});

test('what ran is the difference of two looks; names are safe; what has no kernel is told as such', async (t) => {
  await using journal = await scratchJournal();
  const guest = await SyntheticGuest.make({ kernel: CFS_KERNEL, name: 'web', tasks: TASKS });
  const hosts = new Hosts([new FakeHost([guest.domain, new FakeDomain({ name: 'empty\n', id: 'empty' })])]);
  const watcher = new Watcher(hosts, known, journal);
  const first = await watcher.tick();
  t.like(first, { tick: 1, elapsedMs: 0, missed: 0, actions: [] });
  const [web, empty] = first.domains;
  t.like(web, { name: 'web', hypervisor: 'fake', vcpus: 2 });
  t.deepEqual(
    web!.processes.map(({ pid, comm, state, kernelThread, cpuNs, ranNs }) => [
      pid,
      comm,
      state,
      kernelThread,
      cpuNs,
      ranNs,
    ]),
    [
      [1, 'init', 'sleeping', false, 0, 0],
      [2, 'kthreadd', 'sleeping', true, 0, 0],
      [10, 'web', 'running', false, 5e9, 0],
      [11, 'db\\x1b[2J', 'ready', false, 2e9, 0],
    ],
  );
  t.is(empty!.name, 'empty\\x0a');
  t.is(empty!.error?.code, 'kernel-unidentified');
  t.deepEqual(empty!.processes, []);

  guest.put(guest.tasks.get(10)!, 'task_struct', 'se.sum_exec_runtime', 5_250_000_000n);
  const second = await watcher.tick(3);
  t.like(second, { tick: 2, missed: 3 });
  t.true(second.elapsedMs > 0);
  t.deepEqual(
    second.domains[0]!.processes.map(({ ranNs }) => ranNs),
    [0, 0, 2.5e8, 0],
  );
  t.deepEqual(
    second.domains[0]!.processes.map(({ key }) => key),
    web!.processes.map(({ key }) => key),
  );
  watcher.detach();
});

test('what the journal says is held is held, by whom and why; another process of that pid is not', async (t) => {
  await using journal = await scratchJournal();
  const guest = await SyntheticGuest.make({ kernel: CFS_KERNEL, name: 'web', tasks: TASKS });
  const watcher = new Watcher(new Hosts([new FakeHost([guest.domain])]), known, journal);
  const facts = { connection: 'fake:', domain: guest.domain.identity.id, name: 'web', buildId: null };
  const record = (pid: number, address: bigint) => ({
    ...{ ...facts, pid, comm: 'x', startTimeNs: pid * 1e9, since: '2026-01-01T00:00:00.000Z' },
    address: `0x${address.toString(16)}`,
  });
  await journal.add({ ...record(10, guest.tasks.get(10)!), policy: 'night', reason: 'web sleeps' });
  await journal.add(record(11, guest.tasks.get(10)!));
  const held = async () =>
    (await watcher.tick()).domains[0]!.processes.flatMap(({ pid, state, held: why }) =>
      why === undefined ? [] : [{ pid, state, ...why }],
    );
  t.deepEqual(await held(), [
    { pid: 10, state: 'held', policy: 'night', reason: 'web sleeps', since: '2026-01-01T00:00:00.000Z' },
  ]);
  await journal.add({ ...record(10, guest.tasks.get(10)!), boot: 'another' });
  t.deepEqual(await held(), [], 'held in another boot');
  await journal.remove(record(10, guest.tasks.get(10)!));
  t.deepEqual(await held(), []);
  watcher.detach();
});

test('where no start times tell tasks apart, the guest has to agree that one is held', async (t) => {
  await using journal = await scratchJournal();
  const guest = await fakeGuest('web', { comm: 'one', state: 'ready' }, { comm: 'two', state: 'ready' });
  const host = new FakeHost([guest.domain]);
  const watcher = new Watcher(new Hosts([host]), known, journal);
  const held = async () =>
    (await watcher.tick()).domains[0]!.processes.flatMap(({ comm, held: why }) => (why ? [comm] : []));
  await watcher.tick();
  const attached = await Guest.attach(guest.domain, known);
  const surgeon = new Surgeon(guest.domain, attached, holderFor(attached));
  const { processes } = attached.snapshot();
  // Both are on record, as after the machine was started again: the same tasks in the same places.
  for (const { pid, comm, address, startTimeNs } of processes.filter(({ ppid }) => ppid === 1)) {
    t.is(startTimeNs, 0);
    await journal.add({
      ...{ connection: 'fake:', domain: 'web', name: 'web', buildId: null, pid, comm, startTimeNs },
      ...{ address: `0x${address.toString(16)}`, since: '2026-01-01T00:00:00.000Z' },
    });
  }
  t.deepEqual(await held(), []);
  await surgeon.hold(processes.find(({ comm }) => comm === 'two')!, { limitMs: 1_000 });
  t.deepEqual(await held(), ['two']);
  attached.detach();
  watcher.detach();
});
