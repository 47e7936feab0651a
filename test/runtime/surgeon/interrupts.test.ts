import test from 'ava';
import { Draft } from '../../../runtime/edit/draft.ts';
import type { Guest } from '../../../runtime/guest/guest.ts';
import { FakeDomain } from '../../../runtime/hypervisor/fake/domain.ts';
import { guestVirtual } from '../../../runtime/memory/address.ts';
import { PagedAddressSpace } from '../../../runtime/memory/address-space.ts';
import { FOUR_LEVEL } from '../../../runtime/memory/paging.ts';
import { Interrupts } from '../../../runtime/surgeon/interrupts.ts';
import { proveCallable } from '../../../runtime/technique/park/proof.ts';

const IDT = 0x40_0000;
const RESCHEDULE = 0xffff_ffff_81a0_0b20n;
const IRQ_WORK = 0xffff_ffff_81a0_0b80n;
const FUNCTION = 0x50_0000;
/** Per-CPU areas of the kernel's CPUs. */
const AREAS = [0xffff_8880_1f60_0000n, 0xffff_8880_1f80_0000n];

function machine() {
  const domain = new FakeDomain({
    ram: [{ first: 0, count: 8192 }],
    vcpus: [
      { idtBase: BigInt(IDT), idtLimit: 0xfff },
      { idtBase: BigInt(IDT), idtLimit: 0xfff },
    ],
  });
  const word = (address: number, value: bigint) => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    domain.image.store(address, bytes);
  };
  word(0x1000, 0x2003n);
  word(0x2000, 0x3003n);
  for (let i = 0; i < 16; i++) word(0x3000 + 8 * i, (BigInt(i) << 21n) | 0x83n);
  const mode = { split: FOUR_LEVEL, physicalBits: 46, noExecute: true, largePages: [2, 3] };
  const space = new PagedAddressSpace(domain, mode, 0x1000);
  const symbols: Record<string, bigint> = {
    asm_sysvec_reschedule_ipi: RESCHEDULE,
    asm_sysvec_irq_work: IRQ_WORK,
  };
  const guest = {
    space,
    symbol: (name: string) => symbols[name],
    cpus: AREAS.map((area, cpu) => ({ cpu, area, pda: undefined })),
    layout: { symbol: () => undefined },
  } as unknown as Guest;
  return { domain, space, guest };
}

/** Intel SDM vol. 3A, figure 7-8: a present 64-bit interrupt gate. */
function gate(domain: FakeDomain, vector: number, handler: bigint, type = 0x8e): void {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, Number(handler & 0xffffn), true);
  view.setUint16(2, 0x10, true);
  view.setUint8(5, type);
  view.setUint16(6, Number((handler >> 16n) & 0xffffn), true);
  view.setUint32(8, Number(handler >> 32n), true);
  domain.image.store(IDT + 16 * vector, bytes);
}

test("vectors are those whose handler is the kernel's own for the purpose", async (t) => {
  const { domain, guest } = machine();
  gate(domain, 0xfd, RESCHEDULE);
  gate(domain, 0xf6, IRQ_WORK);
  gate(domain, 0xfb, 0xffff_ffff_8123_4567n);
  const interrupts = await Interrupts.of(domain, guest);
  t.is(interrupts.vector('reschedule'), 0xfd);
  t.is(interrupts.vector('irq-work'), 0xf6);
  await interrupts.send([
    { cpu: 1, kind: 'reschedule' },
    { cpu: 1, kind: 'reschedule' },
    { cpu: 0, kind: 'irq-work' },
  ]);
  const sent = domain.recorder.calls.filter(({ kind }) => kind === 'inject');
  t.deepEqual(sent, [
    { kind: 'inject', vcpu: 1, vector: 0xfd },
    { kind: 'inject', vcpu: 0, vector: 0xf6 },
  ]);
});

test("an interrupt goes to the vCPU that the kernel's CPU is, whatever its number", async (t) => {
  const { domain, guest } = machine();
  gate(domain, 0xfd, RESCHEDULE);
  domain.vcpus = domain.vcpus.map((vcpu) => ({ ...vcpu, gsBase: AREAS[1 - vcpu.vcpu]! }));
  const interrupts = await Interrupts.of(domain, guest);
  await interrupts.send([{ cpu: 0, kind: 'reschedule' }]);
  const sent = domain.recorder.calls.filter(({ kind }) => kind === 'inject');
  t.deepEqual(sent, [{ kind: 'inject', vcpu: 1, vector: 0xfd }]);
});

test('what cannot be proved is not sent: two gates with one handler, absent gates, a handler among the exceptions', async (t) => {
  const { domain, guest } = machine();
  gate(domain, 0xfd, RESCHEDULE);
  gate(domain, 0xfc, RESCHEDULE);
  gate(domain, 0xf6, IRQ_WORK, 0x0e);
  gate(domain, 3, IRQ_WORK);
  const interrupts = await Interrupts.of(domain, guest);
  t.deepEqual(interrupts.kinds, []);
  await interrupts.send([
    { cpu: 0, kind: 'reschedule' },
    { cpu: 0, kind: 'irq-work' },
  ]);
  t.is(domain.recorder.count('inject'), 0);
});

test('a hypervisor that cannot send any, or fails to, leaves the work to ticks', async (t) => {
  const { domain, guest } = machine();
  gate(domain, 0xfd, RESCHEDULE);
  const { notify: _none, ...silent } = domain;
  const without = await Interrupts.of({ ...silent, notify: undefined } as unknown as FakeDomain, guest);
  t.deepEqual(without.kinds, []);
  await without.send([{ cpu: 0, kind: 'reschedule' }]);
  const interrupts = await Interrupts.of(domain, guest);
  t.deepEqual(interrupts.kinds, ['reschedule']);
  domain.destroy();
  await interrupts.send([{ cpu: 0, kind: 'reschedule' }]);
  t.deepEqual(interrupts.kinds, []);
});

test('forged calls are refused where the kernel would stop them', async (t) => {
  const { domain, space } = machine();
  const prove = async (before: number[], begin: number[], cr4 = 0x6b0n) => {
    domain.image.store(FUNCTION - before.length, Uint8Array.from(before));
    domain.image.store(FUNCTION, Uint8Array.from(begin));
    const registers = (await domain.registers.read()).map((vcpu) => ({ ...vcpu, cr4 }));
    proveCallable(new Draft(space), guestVirtual(BigInt(FUNCTION)), registers);
  };
  const nops = [0x90, 0x90, 0x90, 0x90, 0x90];
  const endbr = [0xf3, 0x0f, 0x1e, 0xfa];
  const fentry = [0xe8, 0x0b, 0x5c, 0xfc];
  await t.notThrowsAsync(prove(nops, endbr));
  await t.notThrowsAsync(prove(nops, fentry), 'no tracking, no mark needed');
  await t.notThrowsAsync(prove(nops, endbr, 1n << 23n));
  await t.throwsAsync(prove(nops, fentry, 1n << 23n), { code: 'refused', message: /IBT/ });
  const hash = [0xb8, 0x11, 0x22, 0x33, 0x44];
  const padding = (size: number) => new Array<number>(size).fill(0x90);
  // With padding to 8, 16, 32, 64 bytes; and with the call depth tracking of kernels for Skylake written over it.
  for (const before of [
    hash,
    ...[8, 16, 32, 64].map((size) => [...hash, ...padding(size - hash.length)]),
    [...hash, 0x90, 0x65, 0x48, 0xc1, 0x3c, 0x25, 0x10, 0x20, 0x03, 0x00, 0x05],
    // FineIBT: `endbr64; subl $0x44332211, %r10d; je 1f; ud2; 1: nop`, and since 6.15 `endbr64; subl …, %eax; jne`.
    [...endbr, 0x41, 0x81, 0xea, 0x11, 0x22, 0x33, 0x44, 0x74, 0x02, 0x0f, 0x0b, 0x90],
    [...endbr, 0x2d, 0x11, 0x22, 0x33, 0x44, 0x2e, 0x0f, 0x85, 0x03, 0x00, 0x00, 0x00],
  ])
    await t.throwsAsync(prove([...padding(64), ...before], endbr), { code: 'refused', message: /kCFI/ });
  // The end of another function, `mov $1, %eax; ret`, before padding; and a function that is only `endbr64; ret`.
  for (const before of [
    [0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3, ...padding(10)],
    [...endbr, 0xc3, ...padding(11)],
  ])
    await t.notThrowsAsync(prove([...padding(64), ...before], endbr));
  t.throws(() => proveCallable(new Draft(space), guestVirtual(BigInt(FUNCTION + 64)), []), {
    code: 'refused',
  });
});
