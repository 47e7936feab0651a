/** What becomes of a process that is spliced or held by state when its own guest does something to it. */
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { DomschedError } from '../../runtime/error.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { findProcess, goesOn, PATIENCE_MS } from './cycles.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { until } from './until.ts';

/** Groups with queues of their own. */
const setup = `
mount -t cgroup2 none /sys/fs/cgroup
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/a /sys/fs/cgroup/b
`;
const names = ['one', 'two', 'three', 'four', 'five', 'six'];
const programs = names.map((name) => ({ kind: 'burner', name }) as const);

for (const kernel of ['debian-6.1-cloud', 'debian-6.12-cloud']) {
  for (const technique of ['splice', 'state'] as const) {
    test.serial(`${kernel}: what the guest itself does to a process held by ${technique}`, async (t) => {
      t.timeout(600_000);
      await using guest = await bootDebian({ kernel, programs, setup });
      await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
      const attached = await Guest.attach(domain, await knownKernels());
      const surgeon = new Surgeon(domain, attached, holderFor(attached));
      await goesOn(t, guest, Object.fromEntries(names.map((name) => [name, 0])));
      const processes = await processesOf(attached);
      const find = (name: string) => findProcess(processes, name);
      const hold = async (name: string) => {
        await surgeon.hold(find(name), { limitMs: PATIENCE_MS, techniques: [technique] });
        await standsStill(t, guest, name);
      };
      const release = async (name: string) =>
        t.is((await surgeon.release(find(name), { limitMs: PATIENCE_MS })).outcome, 'released', name);
      const letGo = async (name: string) => {
        const before = await guest.progress(name);
        await release(name);
        await goesOn(t, guest, before);
      };
      /** A queue that a spliced thread cannot go back to keeps it where it is. */
      const staysHeld = async (name: string, why: RegExp) => {
        await t.throwsAsync(surgeon.release(find(name), { limitMs: 1_000 }), {
          code: 'refused',
          message: why,
        });
        await standsStill(t, guest, name);
      };
      const pid = (name: string) => find(name).pid;

      // SIGKILL waits for the release.
      await hold('one');
      await guest.run(`kill -9 ${pid('one')}`);
      await standsStill(t, guest, 'one');
      const after = await surgeon.release(find('one'), { limitMs: PATIENCE_MS }).then(
        ({ outcome }) => outcome,
        ({ code }: DomschedError) => code,
      );
      t.true(['released', 'process-not-found'].includes(after), after);
      await until('the killed process is gone', async () => {
        const left = await processesOf(attached);
        return !left.some(({ pid: other, state }) => other === pid('one') && state !== 'zombie');
      });

      // SIGSTOP and SIGCONT, then a stop that outlives the hold.
      await hold('two');
      await guest.run(`kill -STOP ${pid('two')}; kill -CONT ${pid('two')}`);
      await standsStill(t, guest, 'two');
      // Reniced from outside meanwhile, it stays held.
      t.is((await surgeon.renice(find('two'), 3, { limitMs: PATIENCE_MS })).outcome, 'reniced');
      t.is((await guest.run(`cat /proc/${pid('two')}/stat`)).split(') ')[1]!.split(' ')[16], '3');
      await standsStill(t, guest, 'two');
      await letGo('two');
      await hold('two');
      await guest.run(`kill -STOP ${pid('two')}`);
      await release('two');
      await until('it stops', async () => /\(two\) T /.test(await guest.run(`cat /proc/${pid('two')}/stat`)));
      await standsStill(t, guest, 'two');
      const stopped = await guest.progress('two');
      await guest.run(`kill -CONT ${pid('two')}`);
      await goesOn(t, guest, stopped);

      // Frozen meanwhile: its group is not, before it runs into the trap; then it is until the guest thaws it.
      await guest.run(`echo ${pid('three')} >/sys/fs/cgroup/a/cgroup.procs`);
      await hold('three');
      await guest.run('echo 1 >/sys/fs/cgroup/a/cgroup.freeze');
      await release('three');
      await until('the group is frozen', async () =>
        /frozen 1/.test(await guest.run('cat /sys/fs/cgroup/a/cgroup.events')),
      );
      const frozen = await guest.progress('three');
      await guest.run('echo 0 >/sys/fs/cgroup/a/cgroup.freeze');
      await goesOn(t, guest, frozen);

      // Moved to another group and back, and reniced: it comes back where it then belongs.
      await hold('three');
      await guest.run(`echo ${pid('three')} >/sys/fs/cgroup/b/cgroup.procs; renice -n 5 -p ${pid('three')}`);
      await standsStill(t, guest, 'three');
      await letGo('three');
      t.is((await guest.run(`cat /proc/${pid('three')}/stat`)).split(') ')[1]!.split(' ')[16], '5');
      await hold('three');
      await guest.run(`echo ${pid('three')} >/sys/fs/cgroup/cgroup.procs`);
      await letGo('three');

      // Its CPU is forbidden to it, or unplugged.
      for (const name of ['four', 'five', 'six']) await guest.run(`taskset -p 2 ${pid(name)}`);
      await until('they are on CPU 1', async () => {
        const { runQueues } = await attached.take();
        const own = new Set(['four', 'five', 'six'].map(pid));
        return runQueues[1]!.tasks.filter((task) => own.has(task.pid)).length === 3;
      });
      await hold('four');
      await guest.run(`taskset -p 1 ${pid('four')}`);
      if (technique === 'splice') {
        await staysHeld('four', /CPU 1.*still held/);
        await guest.run(`taskset -p 3 ${pid('four')}`);
      }
      await letGo('four');
      await guest.run(`taskset -p 2 ${pid('four')}`);
      await goesOn(t, guest, await guest.progress('four'));
      await hold('four');
      await guest.run('echo 0 >/sys/devices/system/cpu/cpu1/online');
      if (technique === 'splice') await staysHeld('four', /CPU 1.*still held/);
      await guest.run('echo 1 >/sys/devices/system/cpu/cpu1/online');
      await letGo('four');

      // Another policy has other queues.
      await hold('four');
      await guest.run(`workload fifo ${pid('four')}`);
      if (technique === 'splice') {
        await staysHeld('four', /policy.*still held/);
        await guest.run(`workload other ${pid('four')}`);
      }
      await letGo('four');
      await guest.run(`workload other ${pid('four')}`);
      await goesOn(t, guest, await guest.progress('two', 'three', 'four', 'five', 'six'));
      t.true((await attached.take({ pause: true })).exact);
      guest.checkConsole();
      attached.detach();
    });
  }
}

async function standsStill(t: ExecutionContext, guest: LiveGuest, name: string): Promise<void> {
  const before = await guest.progress(name);
  await sleep(100);
  t.deepEqual(await guest.progress(name), before, `${name} stands still`);
}
