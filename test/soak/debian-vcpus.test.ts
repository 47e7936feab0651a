/**
 * CPUs that were plugged in have the hypervisor's numbers by their slots, and the kernel's by the order in which they came.
 * In `make soak` only: a guest under QEMU's TCG that has something to do meanwhile hangs while it brings such a CPU up,
 * in half of the boots or more. So its programs start afterwards.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { Guest } from '../../runtime/guest/guest.ts';
import { vcpusByCpu } from '../../runtime/guest/vcpus.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { Cycles, CycleTable, findProcess, goesOn } from '../live/cycles.ts';
import { bootDebian } from '../live/guest.ts';
import { until } from '../live/until.ts';

interface CpuSlot {
  type: string;
  props: { 'socket-id': number };
}

const names = ['one', 'two', 'three', 'four'];

test('vCPUs whose numbers are not those of the CPUs: each is found, and told to hold by its own registers', async (t) => {
  t.timeout(900_000);
  // This kernel numbers a CPU when it comes; later ones have a number for each slot.
  await using guest = await bootDebian({
    kernel: 'debian-6.1-cloud',
    cpus: '1,maxcpus=3,sockets=3,cores=1,threads=1',
  });
  const monitor = await guest.monitor();
  const slots = (await monitor.execute('query-hotpluggable-cpus')) as CpuSlot[];
  for (const [index, socket] of [2, 1].entries()) {
    const { type, props } = slots.find((slot) => slot.props['socket-id'] === socket)!;
    await monitor.execute('device_add', { driver: type, id: `socket-${socket}`, ...props });
    const online = `/sys/devices/system/cpu/cpu${index + 1}/online`;
    const state = async () => (await guest.run(`cat ${online} 2>/dev/null || true`)).trim();
    await until(`CPU ${index + 1} is there`, async () => (await state()) !== '');
    // Some kernels bring it up by themselves.
    if ((await state()) === '0') await guest.run(`echo 1 >${online}`);
  }
  // With one core and thread per socket the APIC ids are the sockets, and QEMU's numbers the slots.
  const cpuinfo = await guest.run('cat /proc/cpuinfo');
  const sockets = [...cpuinfo.matchAll(/^initial apicid\s*: (\d+)$/gm)].map(([, id]) => Number(id));
  t.deepEqual(sockets, [0, 2, 1], "the kernel's order");

  await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
  const attached = await Guest.attach(domain, await knownKernels());
  const numbers = new Map(
    ((await monitor.execute('query-cpus-fast')) as { 'cpu-index': number; props: CpuSlot['props'] }[]).map(
      (vcpu) => [vcpu.props['socket-id'], vcpu['cpu-index']],
    ),
  );
  for (let look = 0; look < 20; look++) {
    await sleep(Math.random() * 20);
    await using _pause = await domain.pause.acquire();
    const found = vcpusByCpu(attached, await domain.registers.read());
    t.deepEqual(
      [0, 1, 2].map((cpu) => found.get(cpu)?.vcpu),
      sockets.map((socket) => numbers.get(socket)),
    );
  }

  for (const name of names) await guest.run(`workload burner ${name} </dev/null >/dev/null 2>&1 &`);
  const surgeon = new Surgeon(domain, attached, holderFor(attached));
  await goesOn(t, guest, Object.fromEntries(names.map((name) => [name, 0])));
  const { processes } = await attached.take();
  const table = new CycleTable('vcpus');
  using cycles = new Cycles(t, guest, surgeon, table, names, names);
  for (let cycle = 0; cycle < 12; cycle++) {
    const process = findProcess(processes, names[cycle % names.length]!);
    await cycles.round([{ process, technique: 'state' }], 100);
  }
  await cycles.end();
  for (const line of table.lines()) t.log(line);
  attached.detach();
});
