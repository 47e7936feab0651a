/** What becomes of a parked process when its own guest kills, stops, freezes, moves or renices it, or takes its CPU. */
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { DomschedError } from '../../runtime/error.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import type { Process } from '../../runtime/guest/process.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { until } from './until.ts';

const PATIENCE_MS = 120_000;
const patient = { limitMs: PATIENCE_MS };

const setup = `
mount -t cgroup2 none /sys/fs/cgroup
mkdir /sys/fs/cgroup/a /sys/fs/cgroup/b
`;
const programs = ['one', 'two', 'three', 'four', 'five'].map((name) => ({ kind: 'burner', name }) as const);

for (const kernel of ['debian-6.1-cloud', 'debian-6.12-cloud']) {
  test.serial(`${kernel}: what the guest itself does to a held process`, async (t) => {
    t.timeout(900_000);
    await using guest = await bootDebian({
      kernel,
      programs: [...programs, { kind: 'sleeper', name: 'idler' }],
      setup,
    });
    await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    for (const { name } of programs) await goesOn(guest, name);
    const processes = await processesOf(attached);
    const find = (name: string): Process => processes.find(({ comm }) => comm === name)!;

    // SIGKILL ends it: nothing of the hold keeps it.
    const one = find('one');
    await surgeon.hold(one, patient);
    await guest.run(`kill -9 ${one.pid}`);
    await until('the killed process is gone', async () => {
      const left = await processesOf(attached);
      return !left.some(({ pid, state }) => pid === one.pid && state !== 'zombie');
    });
    const after = await surgeon.release(one, patient).then(
      ({ outcome }) => outcome,
      ({ code }: DomschedError) => code,
    );
    t.true(['unchanged', 'process-not-found'].includes(after), after);

    // SIGSTOP and SIGCONT under a hold change nothing; a stop that outlives the hold stays.
    const two = find('two');
    await surgeon.hold(two, patient);
    await guest.run(`kill -STOP ${two.pid}`);
    await guest.run(`kill -CONT ${two.pid}`);
    await standsStill(t, guest, 'two');
    await guest.run(`kill -STOP ${two.pid}`);
    await surgeon.release(two, patient);
    await standsStill(t, guest, 'two');
    t.regex(await guest.run(`cat /proc/${two.pid}/stat`), /\(two\) T /);
    await guest.run(`kill -CONT ${two.pid}`);
    await goesOn(guest, 'two');

    // Stopped before it is held and continued under the hold, it comes to the trap another way, and out of it too.
    await guest.run(`kill -STOP ${two.pid}`);
    await until('the process is stopped', async () =>
      /\(two\) T /.test(await guest.run(`cat /proc/${two.pid}/stat`)),
    );
    t.is((await surgeon.hold(two, patient)).outcome, 'held');
    await guest.run(`kill -CONT ${two.pid}`);
    await standsStill(t, guest, 'two');
    t.is((await surgeon.release(two, patient)).outcome, 'released');
    await goesOn(guest, 'two');

    // cgroup.freeze takes the hold over: what the guest froze, we neither hold nor release.
    const three = find('three');
    await guest.run(`echo ${three.pid} >/sys/fs/cgroup/a/cgroup.procs`);
    await surgeon.hold(three, patient);
    await guest.run('echo 1 >/sys/fs/cgroup/a/cgroup.freeze');
    await until('the group is frozen', async () =>
      /frozen 1/.test(await guest.run('cat /sys/fs/cgroup/a/cgroup.events')),
    );
    t.is((await surgeon.release(three, patient)).outcome, 'unchanged');
    await standsStill(t, guest, 'three');
    await t.throwsAsync(surgeon.hold(three, patient), { code: 'refused' });
    await guest.run('echo 0 >/sys/fs/cgroup/a/cgroup.freeze');
    await goesOn(guest, 'three');
    t.is((await surgeon.hold(three, patient)).outcome, 'held');
    // Moved to a group that is not frozen, a task in the trap is let go by the kernel.
    await guest.run(`echo ${three.pid} >/sys/fs/cgroup/b/cgroup.procs`);
    await goesOn(guest, 'three');
    await surgeon.release(three, patient);

    // Nice value, affinity and the loss of its CPU do not wake it.
    const four = find('four');
    await surgeon.hold(four, patient);
    await guest.run(`renice -n 5 -p ${four.pid} && taskset -p 2 ${four.pid} && taskset -p 3 ${four.pid}`);
    await guest.run('echo 0 >/sys/devices/system/cpu/cpu1/online');
    await standsStill(t, guest, 'four');
    await surgeon.release(four, patient);
    await goesOn(guest, 'four');
    await surgeon.hold(four, patient);
    await guest.run('echo 1 >/sys/devices/system/cpu/cpu1/online');
    await standsStill(t, guest, 'four');
    await surgeon.release(four, patient);
    await goesOn(guest, 'four');

    // A sleeper whose sleep ends while it is held goes on with its next one after the release.
    const idler = find('idler');
    await surgeon.hold(idler, patient);
    await sleep(100);
    await standsStill(t, guest, 'idler');
    await surgeon.release(idler, patient);
    await goesOn(guest, 'idler');

    await t.throwsAsync(surgeon.hold(processes.find(({ pid }) => pid === 1)!, patient), { code: 'refused' });
    await t.throwsAsync(surgeon.hold(processes.find(({ kernelThread }) => kernelThread)!, patient), {
      code: 'refused',
    });
    guest.checkConsole();
    attached.detach();
  });
}

test.serial('by ticks alone, a guest that is idle but for what is held lets it go on', async (t) => {
  t.timeout(900_000);
  await using guest = await bootDebian({
    kernel: 'debian-6.12-cloud',
    programs: [{ kind: 'burner', name: 'alone' }],
  });
  await using domain = await QemuDomain.attach({ qmp: guest.sockets.qmp }, guest.connection);
  const attached = await Guest.attach(domain, await knownKernels());
  const surgeon = new Surgeon(domain, attached, holderFor(attached));
  await goesOn(guest, 'alone');
  const processes = await processesOf(attached);
  const alone = processes.find(({ comm }) => comm === 'alone')!;
  const waits: number[] = [];
  for (let cycle = 0; cycle < 5; cycle++) {
    await surgeon.hold(alone, patient);
    await standsStill(t, guest, 'alone');
    // Long enough for both CPUs to stop their ticks.
    await sleep(500);
    const start = performance.now();
    t.is((await surgeon.release(alone, patient)).outcome, 'released');
    waits.push(Math.round(performance.now() - start));
    await goesOn(guest, 'alone');
  }
  t.log(`released after ${waits.join(', ')} ms`);
  guest.checkConsole();
  attached.detach();
});

async function standsStill(t: ExecutionContext, guest: LiveGuest, name: string): Promise<void> {
  const before = await guest.progress(name);
  await sleep(150);
  t.deepEqual(await guest.progress(name), before, `${name} stands still`);
}

async function goesOn(guest: LiveGuest, name: string): Promise<void> {
  const before = (await guest.progress(name))[name]!;
  await until(`${name} goes on`, async () => (await guest.progress(name))[name]! > before);
}
