import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { bootDebian } from './guest.ts';

test("the gdbstub gives the kernel's GS base and interrupts; the guest goes on", async (t) => {
  const gdb = path.join(tmpdir(), `domsched-gdb-${process.pid}.sock`);
  await using guest = await bootDebian({
    name: 'gdb',
    memory: 256,
    extra: ['-gdb', `unix:${gdb},server=on,wait=off`],
    programs: [
      { kind: 'burner', name: 'burner-a' },
      { kind: 'burner', name: 'burner-b' },
    ],
  });
  const { qmp } = guest.sockets;
  await using domain = await QemuDomain.attach({ qmp, gdb }, `qemu:unix:${qmp},gdb=unix:${gdb}`);
  t.is(await domain.state(), 'running');
  const kernelGs = new Map<number, Set<bigint>>([
    [0, new Set()],
    [1, new Set()],
  ]);
  for (let round = 0; round < 20; round++) {
    {
      await using _guard = await domain.pause.acquire();
      for (const vcpu of await domain.registers.read()) {
        // In user mode the kernel's base is the swapped one; in the kernel the active one, once past the entry.
        const base = vcpu.cpl === 0 && vcpu.gsBase >> 63n ? vcpu.gsBase : vcpu.kernelGsBase!;
        kernelGs.get(vcpu.vcpu)!.add(base);
      }
    }
    t.is(await domain.state(), 'running');
    await sleep(30);
  }
  // Each CPU's area stays where it is, in the kernel's half, and is its own.
  for (const bases of kernelGs.values()) t.is(bases.size, 1);
  const [first, second] = [...kernelGs.values()].map((bases) => [...bases][0]!);
  t.not(first, second);
  t.is(first! >> 63n, 1n);
  const calls = async () =>
    Number((await guest.run('grep -E "^ *CAL:" /proc/interrupts')).trim().split(/\s+/)[2]);
  const before = await calls();
  for (let i = 0; i < 10; i++) {
    await domain.notify!.inject(1, 0xfb);
    await sleep(20);
  }
  t.true((await calls()) - before >= 5);
  guest.checkConsole();
});
