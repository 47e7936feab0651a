import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { makeGroup, moveInto, removeGroup } from './control-group.ts';
import { bootDebian } from './guest.ts';

/** Seconds of CPU time that a process has used: user and system, in ticks of 10 ms. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

test('weight and cap of a QEMU machine by its control group', async (t) => {
  await using guest = await bootDebian({
    name: 'share',
    memory: 256,
    programs: [{ kind: 'burner', name: 'burner-a' }],
  });
  const pid = guest.process.pid!;
  {
    await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
    t.is(domain.scheduler, undefined, 'a machine that shares its group has none');
  }
  const group = makeGroup(`domsched-test-${process.pid}`);
  if (group === undefined) {
    t.log('not run: no control group with a CPU controller can be made here');
    return;
  }
  try {
    moveInto(group, pid);
    await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
    const scheduler = domain.scheduler!;
    t.deepEqual(await scheduler.get(), { weight: 256, cap: 0 });
    t.deepEqual(await scheduler.set({ weight: 512 }), { weight: 512, cap: 0 });
    t.deepEqual(await scheduler.set({ cap: 20 }), { weight: 512, cap: 20 });
    await sleep(300);
    const [before, begin] = [cpuSeconds(pid), process.hrtime.bigint()];
    await sleep(3000);
    const used = (cpuSeconds(pid) - before) / (Number(process.hrtime.bigint() - begin) / 1e9);
    t.true(used < 0.3, `capped at 20 %, it used ${(used * 100).toFixed(0)} %`);
    await t.throwsAsync(scheduler.set({ weight: 0 }), { code: 'usage' });
    await t.throwsAsync(scheduler.set({ cap: -1 }), { code: 'usage' });
    t.deepEqual(await scheduler.set({ weight: 256, cap: 0 }), { weight: 256, cap: 0 });
  } finally {
    await guest.kill();
    await removeGroup(group);
  }
});
