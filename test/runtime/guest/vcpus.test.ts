import test from 'ava';
import { matchVcpus } from '../../../runtime/guest/vcpus.ts';
import type { VcpuRegisters } from '../../../runtime/hypervisor/types.ts';
import { type GuestVirtual, guestVirtual } from '../../../runtime/memory/address.ts';

const AREAS = [0xffff_8880_1f60_0000n, 0xffff_8880_1f80_0000n, 0xffff_8880_1fa0_0000n];
/** Where the kernel has each CPU's task-state segment, and where its entry code has the same. */
const TSS = AREAS.map((area) => guestVirtual(area + 0x6000n));
const ENTRY_TSS = [0xffff_fe00_0000_3000n, 0xffff_fe00_0003_e000n, 0xffff_fe00_0007_9000n];

/** The kernel's own mapping and the one for entry code lead to one place. */
function placeOf(address: GuestVirtual): string | undefined {
  const cpu = [TSS, ENTRY_TSS].map((all) => all.indexOf(address as never)).find((index) => index >= 0);
  return cpu === undefined ? undefined : `${0x1000 + cpu}:0`;
}

const cpus = AREAS.map((gsBase, cpu) => ({ cpu, gsBase, tss: TSS[cpu] }));

interface ShownRegisters {
  cpl: number;
  gs?: bigint;
  kernelGs?: bigint;
  tss?: bigint;
}

/** Which vCPU each CPU was proved to be. */
function match(shown: readonly ShownRegisters[], marks = cpus): Record<number, number> {
  const registers = shown.map(({ cpl, gs, kernelGs, tss }, vcpu) => {
    return { vcpu, cpl, gsBase: gs ?? 0n, kernelGsBase: kernelGs, tssBase: tss } as VcpuRegisters;
  });
  return Object.fromEntries([...matchVcpus(marks, registers, placeOf)].map(([cpu, { vcpu }]) => [cpu, vcpu]));
}

test('in the kernel GS tells the CPU, in user mode the kernel GS base does', (t) => {
  t.deepEqual(match([{ cpl: 0, gs: AREAS[0]! }]), { 0: 0 });
  t.deepEqual(match([{ cpl: 3, gs: 0x7fff_1000n, kernelGs: AREAS[0]! }]), { 0: 0 });
  t.deepEqual(match([{ cpl: 0, gs: 0n, kernelGs: AREAS[0]! }]), { 0: 0 }, 'entry code before swapgs');
});

test('vCPUs that are numbered otherwise than the CPUs', (t) => {
  t.deepEqual(
    match([
      { cpl: 0, gs: AREAS[0]! },
      { cpl: 3, kernelGs: AREAS[2]! },
      { cpl: 3, tss: ENTRY_TSS[1]! },
    ]),
    { 0: 0, 1: 2, 2: 1 },
  );
});

test('a backend that shows no kernel GS base: the task-state segment, in either mapping', (t) => {
  t.deepEqual(match([{ cpl: 3, tss: ENTRY_TSS[1]! }]), { 1: 0 });
  t.deepEqual(match([{ cpl: 3, tss: TSS[1]! }]), { 1: 0 });
});

test('a program whose GS base is a per-CPU area of the kernel deceives nobody', (t) => {
  t.deepEqual(match([{ cpl: 3, gs: AREAS[1]! }]), {});
  t.deepEqual(match([{ cpl: 3, gs: AREAS[1]!, tss: ENTRY_TSS[0]! }]), { 0: 0 });
  t.deepEqual(match([{ cpl: 0, gs: AREAS[1]!, kernelGs: AREAS[0]! }]), {}, 'entry code: nobody can tell');
});

test('what contradicts itself or another vCPU is no proof', (t) => {
  t.deepEqual(match([{ cpl: 0, gs: AREAS[0]!, tss: ENTRY_TSS[1]! }]), {});
  const twice = [
    { cpl: 3, kernelGs: AREAS[0]! },
    { cpl: 0, gs: AREAS[0]! },
    { cpl: 0, gs: AREAS[0]! },
    { cpl: 0, gs: AREAS[1]! },
  ];
  t.deepEqual(match(twice), { 1: 3 });
});

test('neither register leads anywhere: nothing is proved', (t) => {
  t.deepEqual(match([{ cpl: 3, gs: 0x7fff_1000n }]), {});
  t.deepEqual(match([{ cpl: 0, gs: 0x1234n, kernelGs: 0n, tss: 0n }]), {});
  const withoutTss = cpus.map((marks) => ({ ...marks, tss: undefined }));
  t.deepEqual(match([{ cpl: 3, tss: ENTRY_TSS[1]! }], withoutTss), {});
});
