import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { psAnswer } from '../../../runtime/control/answers.ts';
import { Hosts } from '../../../runtime/hypervisor/connect.ts';
import { FakeHost } from '../../../runtime/hypervisor/fake/host.ts';
import { JournaledSurgeon, Journals } from '../../../runtime/surgeon/journaled-surgeon.ts';
import type { TickProcess } from '../../../runtime/tick/tick.ts';
import { Watcher } from '../../../runtime/watch/watcher.ts';
import { FakeDaemon, fakeGuest } from '../daemon/fake-daemon.ts';
import { CFS_KERNEL, knownKernel, O1_KERNEL, SyntheticGuest } from '../guest/synthetic.ts';

const known = [knownKernel(CFS_KERNEL), knownKernel(O1_KERNEL)];

/** The three who look at guests, over one guest and one journal. */
class Lookers implements AsyncDisposable {
  readonly journals: Journals;
  readonly #ps: Watcher;
  readonly #top: Watcher;
  readonly #daemon: FakeDaemon;
  readonly #directory: string;

  private constructor(guest: SyntheticGuest, directory: string, daemon: FakeDaemon) {
    const hosts = new Hosts([new FakeHost([guest.domain])]);
    this.#directory = directory;
    this.journals = new Journals(directory);
    this.#ps = new Watcher(hosts, known, this.journals.held);
    this.#top = new Watcher(hosts, known, this.journals.held);
    this.#daemon = daemon;
  }

  static async at(guest: SyntheticGuest): Promise<Lookers> {
    const directory = await mkdtemp(path.join(tmpdir(), 'lookers-'));
    return new Lookers(guest, directory, await FakeDaemon.of([guest], { directory, entries: [] }));
  }

  /** What each of them says of a process. */
  async look(pid: number) {
    const { rows, errors } = psAnswer(await this.#ps.look());
    if (errors.length > 0) throw new Error(errors[0]!.message);
    const ps = rows.find((one) => one.pid === pid);
    const find = (processes: readonly TickProcess[]) => processes.find((one) => one.pid === pid);
    const top = find((await this.#top.tick()).domains[0]!.processes);
    const daemon = find((await this.#daemon.tick()).domains[0]!.processes);
    return { ps: ps?.state, top, daemon };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ps.detach();
    this.#top.detach();
    await this.#daemon[Symbol.asyncDispose]();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

test('a parked task is parked, whoever looks', async (t) => {
  const guest = await SyntheticGuest.make({
    kernel: CFS_KERNEL,
    tasks: [
      { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' },
      { pid: 14, comm: 'cpuhp/0', cpu: 0, state: 'sleeping', kernel: true },
    ],
  });
  // TASK_PARKED of include/linux/sched.h, 6.1.
  guest.put(guest.tasks.get(14)!, 'task_struct', '__state', 0x40);
  await using lookers = await Lookers.at(guest);
  await lookers.look(14);
  const { ps, top, daemon } = await lookers.look(14);
  t.deepEqual([ps, top?.state, daemon?.state], ['parked', 'parked', 'parked']);
});

test('what a process that began between two looks used by the second, it ran since the first', async (t) => {
  const guest = await SyntheticGuest.make({
    kernel: CFS_KERNEL,
    tasks: [
      { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' },
      { pid: 10, comm: 'make', cpu: 0, state: 'sleeping', runtime: 5e9 },
    ],
  });
  const node = guest.offset('task_struct', 'tasks');
  const [first, second] = [guest.tasks.get(1)! + node, guest.tasks.get(10)! + node];
  await using lookers = await Lookers.at(guest);
  guest.ring(guest.initTask + node, first);
  await lookers.look(1);
  const before = await lookers.look(10);
  t.deepEqual(before, { ps: undefined, top: undefined, daemon: undefined });
  guest.ring(guest.initTask + node, first, second);
  for (const queue of guest.queues) guest.put(queue, 'rq', 'nr_switches', 2n);
  const { top, daemon } = await lookers.look(10);
  t.deepEqual([top?.ranNs, daemon?.ranNs], [5e9, 5e9]);
  const after = await lookers.look(10);
  t.deepEqual([after.top?.ranNs, after.daemon?.ranNs], [0, 0]);
});

test('who is held by another id of the same domain is held, whoever looks', async (t) => {
  const guest = await fakeGuest('web', { comm: 'pi', state: 'ready' });
  await using lookers = await Lookers.at(guest);
  const { held } = lookers.journals;
  const surgeon = await JournaledSurgeon.open(guest.domain, known, lookers.journals);
  const { processes } = await surgeon.guest.take({ withoutQueues: true });
  const pi = processes.find(({ comm }) => comm === 'pi')!;
  await surgeon.hold(pi, { limitMs: 1_000 }, { policy: 'night', reason: 'web sleeps' });
  surgeon.detach();
  const [record] = await held.list();
  await held.remove(record!);
  await held.add({ ...record!, domain: '/run/libvirt/web.sock' });
  // The daemon has to attach first, and then writes down what it found.
  const first = await lookers.look(pi.pid);
  t.deepEqual([first.ps, first.top?.state], ['held', 'held']);
  const { ps, top, daemon } = await lookers.look(pi.pid);
  t.deepEqual([ps, top?.state, daemon?.state], ['held', 'held', 'held']);
  t.like(top?.held, { policy: 'night', reason: 'web sleeps' });
  t.deepEqual(daemon?.held, top?.held);
});
