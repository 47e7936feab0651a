/** What becomes of a held process when a debugger in its own guest takes hold of it too. */
import test from 'ava';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { findProcess, goesOn, PATIENCE_MS } from './cycles.ts';
import { bootDebian } from './guest.ts';
import { until } from './until.ts';

const names = ['one', 'two', 'three', 'four'];
const programs = names.map((name) => ({ kind: 'burner', name }) as const);

for (const kernel of ['debian-6.1-cloud', 'debian-6.12-cloud']) {
  test.serial(`${kernel}: a held process under a tracer, and a traced one that is to be held`, async (t) => {
    t.timeout(600_000);
    await using guest = await bootDebian({ kernel, programs, shellNice: -10 });
    await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    await goesOn(t, guest, Object.fromEntries(names.map((name) => [name, 0])));
    const processes = await processesOf(attached);
    const one = findProcess(processes, 'one');
    const standsStill = async (why: string) => {
      const before = await guest.progress('one');
      await goesOn(t, guest, await guest.progress('two'));
      t.deepEqual(await guest.progress('one'), before, `stands still: ${why}`);
    };
    const goesOnFromHere = async () => goesOn(t, guest, await guest.progress('one'));
    const said = async () => (await guest.run('cat /run/trace 2>/dev/null || true')).trim().split('\n');
    const trace = async (way: string) => {
      await guest.run('rm -f /run/go /run/trace');
      // Nobody's child that we talk to: a shell whose child ends while it reads a line forgets what it has of it.
      const start = `workload trace ${way} ${one.pid} >/run/trace 2>&1 </dev/null & echo $! >/run/tracer`;
      await guest.run(`(${start})`);
      await until('it has a tracer', async () => (await said()).includes('traces'));
    };
    const stopped = () => until('its tracer sees it stop', async () => (await said()).includes('stopped'));
    const letGo = async () => {
      await guest.run('touch /run/go');
      await until('its tracer is done', async () => (await said()).includes('let go'));
    };

    for (const technique of ['park', 'splice', 'state'] as const) {
      for (const way of ['seize', 'attach'] as const) {
        const how = `${technique}, ${way}`;
        const options = { limitMs: PATIENCE_MS, techniques: [technique] };
        t.is((await surgeon.hold(one, options)).outcome, 'held', how);
        await trace(way);
        // The freezer's trap has an ear for a tracer's; a signal, and what is in no trap, waits for the release.
        const atOnce = technique === 'park' && way === 'seize';
        if (atOnce) {
          await stopped();
          await standsStill(`${how}, stopped`);
          await letGo();
          await standsStill(`${how}, without its tracer again`);
          t.is((await surgeon.release(one, { limitMs: PATIENCE_MS })).outcome, 'released', how);
          await goesOnFromHere();
          t.is((await surgeon.hold(one, options)).outcome, 'held', how);
          await trace(way);
          await stopped();
        } else {
          await standsStill(how);
          t.deepEqual(await said(), ['traces'], how);
        }
        t.is((await surgeon.release(one, { limitMs: PATIENCE_MS })).outcome, 'released', how);
        await stopped();
        await standsStill(`${how}, released and stopped by its tracer`);
        await letGo();
        await goesOnFromHere();
      }

      await trace('keep');
      await t.throwsAsync(surgeon.hold(one, { limitMs: PATIENCE_MS, techniques: [technique] }), {
        code: 'refused',
        message: /tracer; nothing was changed/,
      });
      await goesOnFromHere();
      await guest.run('kill -9 $(cat /run/tracer)');
      const status = () => guest.run(`cat /proc/${one.pid}/status`);
      await until('it has no tracer', async () => /^TracerPid:\s0$/m.test(await status()));
    }
    t.true((await attached.take({ pause: true })).exact);
    guest.checkConsole();
    attached.detach();
  });
}
