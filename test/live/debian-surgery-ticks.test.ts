/**
 * A thread that is held by state without any interrupt goes into the kernel before the next tick comes. There is code
 * there that stops its own work for as long as it should make way, and makes way by `cond_resched()`: both have to see
 * the request. With one vCPU, because RCU on another one asks a CPU that is in the kernel for long in its own way.
 */
import test from 'ava';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { findProcess, goesOn, PATIENCE_MS } from './cycles.ts';
import { bootDebian } from './guest.ts';

const CYCLES = 24;
const programs = [
  { kind: 'unmaps', name: 'unmaps-a' },
  { kind: 'unmaps', name: 'unmaps-b' },
  { kind: 'unmaps', name: 'unmaps-c' },
] as const;
const names = programs.map(({ name }) => name);

for (const kernel of ['debian-6.1-cloud', 'debian-6.12-cloud']) {
  test.serial(`${kernel}: held by state, by ticks alone, on the way into the kernel`, async (t) => {
    t.timeout(600_000);
    await using guest = await bootDebian({ kernel, cpus: 1, programs, shellNice: -10, append: 'loglevel=7' });
    await using domain = await QemuDomain.attach({ qmp: guest.sockets.qmp }, guest.connection);
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    await goesOn(t, guest, Object.fromEntries(names.map((name) => [name, 0])));
    const processes = await processesOf(attached);
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      const name = names[cycle % names.length]!;
      const process = findProcess(processes, name);
      const held = await surgeon.hold(process, { limitMs: PATIENCE_MS, techniques: ['state'] });
      t.is(held.outcome, 'held');
      const before = await guest.progress(...names);
      const { [name]: _, ...others } = before;
      await goesOn(t, guest, others);
      t.is((await guest.progress(name))[name], before[name], `${name} stands still`);
      t.is((await surgeon.release(process, { limitMs: PATIENCE_MS })).outcome, 'released');
      await goesOn(t, guest, { [name]: before[name]! });
    }
    guest.checkConsole();
    attached.detach();
  });
}
