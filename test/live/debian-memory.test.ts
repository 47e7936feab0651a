import test from 'ava';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import type { QmpClient } from '../../runtime/hypervisor/qemu/qmp-client.ts';
import { guestVirtual } from '../../runtime/memory/address.ts';
import { PagedAddressSpace } from '../../runtime/memory/address-space.ts';
import { pagingMode, tableRoot } from '../../runtime/memory/paging.ts';
import { pagingLevels } from './accelerator.ts';
import { bootDebian } from './guest.ts';

const programs = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'pipe', name: 'pipe-a' },
  { kind: 'threads', name: 'threads-a' },
  { kind: 'forker', name: 'forker-a' },
] as const;

const VARIANTS = [
  { kernel: 'debian-6.1-cloud', ram: 'file', cpu: 'max', machine: 'q35', memory: 384 },
  {
    kernel: 'debian-6.12-cloud',
    ram: 'anonymous',
    cpu: 'qemu64',
    machine: 'pc,max-ram-below-4g=256M',
    memory: 384,
  },
] as const;

for (const variant of VARIANTS) {
  test.serial(
    `${variant.kernel}, RAM ${variant.ram}, CPU ${variant.cpu}: what we read is what QEMU says`,
    async (t) => {
      await using guest = await bootDebian({ ...variant, programs });
      const monitor = await guest.monitor();
      await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
      for (let round = 0; round < 3; round++) {
        await using guard = await domain.pause.acquire();
        t.true(guard.valid);
        t.is(await domain.state(), 'paused');
        const registers = await domain.registers.read();
        t.is(registers.length, 2);
        const addresses: bigint[] = [];
        for (const { rip, rsp, idtBase } of registers) addresses.push(rip, rsp & ~7n, idtBase);
        for (const vcpu of registers) {
          const mode = pagingMode(vcpu, domain.frames.physicalBits);
          t.is(mode.split.length - 1, pagingLevels(variant.cpu, guest.accelerator));
          const space = new PagedAddressSpace(domain, mode, tableRoot(vcpu.cr3));
          // QEMU's own walk, with the same vCPU selected; sign extended as its monitor takes numbers.
          await monitor.human(`cpu ${vcpu.vcpu}`);
          for (const address of addresses) {
            // QEMU's own walk on the same vCPU.
            const oracle = await gva2gpa(monitor, vcpu.vcpu, address);
            const ours = space.probe(guestVirtual(address));
            const physical = 'reason' in ours ? undefined : ours.frame * 4096 + ours.offset;
            t.is(physical, oracle, `${address.toString(16)} on vCPU ${vcpu.vcpu}`);
            if (physical === undefined) continue;
            const words = await monitorWords(monitor, physical - (physical % 8), 2);
            const bytes = space.readBytes(guestVirtual(address & ~7n), 8);
            t.is(Buffer.from(bytes).readBigUInt64LE(), words[0]!);
          }
        }
      }
      t.is(await domain.state(), 'running');
      const before = await guest.progress(...programs.map(({ name }) => name));
      await new Promise((resolve) => setTimeout(resolve, 500));
      const after = await guest.progress(...programs.map(({ name }) => name));
      for (const { name } of programs) t.true(after[name]! > before[name]!, `${name} goes on`);
      guest.checkConsole();
    },
  );
}

async function gva2gpa(monitor: QmpClient, vcpu: number, address: bigint): Promise<number | undefined> {
  const output = await monitor.execute('human-monitor-command', {
    'command-line': `gva2gpa 0x${address.toString(16)}`,
    'cpu-index': vcpu,
  });
  const match = /gpa: (?:0x)?([0-9a-f]+)/.exec(String(output));
  return match === null ? undefined : Number.parseInt(match[1]!, 16);
}

async function monitorWords(monitor: QmpClient, physical: number, count: number): Promise<bigint[]> {
  const output = await monitor.human(`xp /${count}gx 0x${physical.toString(16)}`);
  return [...output.matchAll(/0x([0-9a-f]{16})/g)].map((match) => BigInt(`0x${match[1]}`));
}
