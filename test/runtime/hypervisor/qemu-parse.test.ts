import test from 'ava';
import fc from 'fast-check';
import { DomschedError } from '../../../runtime/error.ts';
import { parseMemoryMap } from '../../../runtime/hypervisor/qemu/memory-map.ts';
import { parseRegisters } from '../../../runtime/hypervisor/qemu/registers.ts';
import { REGISTERS } from './qemu-output.ts';

const MEMORY_MAP = `FlatView #1
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #2
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000c2fff (prio 0, ram): ram
  00000000000c3000-00000000000e7fff (prio 0, rom): ram @00000000000c3000
  00000000000e8000-00000000000effff (prio 0, ram): ram @00000000000e8000
  00000000000f0000-00000000000fffff (prio 0, rom): ram @00000000000f0000
  0000000000100000-000000007fffffff (prio 0, ram): ram @0000000000100000 KVM
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram
  00000000fee00000-00000000feefffff (prio 4096, i/o): apic-msi
  0000000100000000-000000017fffffff (prio 0, ram): ram @0000000080000000
  0000000200000000-0000000207ffffff (prio 0, ram): /objects/hot plug

FlatView #3
 AS "cpu-smm-0", root: memory
  0000000000000000-00000000000fffff (prio 0, ram): ram
`;

test('registers of every vCPU, as the monitor prints them', (t) => {
  const [first, second] = parseRegisters(REGISTERS);
  t.like(first, { vcpu: 0, cpl: 3, halted: false, rip: 0x52ec76n, rsp: 0x7fff7afdd460n, cr3: 0x1ffba000n });
  t.like(second, {
    vcpu: 1,
    cpl: 0,
    halted: true,
    gsBase: 0xffff888010000000n,
    cr4: 0x751ea0n,
    rflags: 0x46n,
  });
  t.is(second!.tssBase, 0xfffffe000003e000n);
  t.like(second, { idtBase: 0xfffffe0000000000n, idtLimit: 0xfff, efer: 0xd01n, kernelGsBase: undefined });
});

test('a vCPU in 32-bit mode is said to be that', (t) => {
  t.throws(() => parseRegisters('\nCPU#0\nEAX=00000000 EBX=00000000\nEIP=0000fff0 EFL=00000002\n'), {
    code: 'guest-inconsistent',
  });
});

test('a vCPU that its guest has not started is left out', (t) => {
  const waiting =
    '\nCPU#2\nEAX=00000000 EBX=00000000\nEIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\n';
  t.deepEqual(
    parseRegisters(REGISTERS + waiting).map(({ vcpu }) => vcpu),
    [0, 1],
  );
  const running = waiting.replace('HLT=1', 'HLT=0');
  t.throws(() => parseRegisters(REGISTERS + running), { code: 'guest-inconsistent' });
  t.throws(() => parseRegisters(waiting), { code: 'guest-inconsistent' });
});

test('every register that is missing or malformed is a protocol error', (t) => {
  for (const name of ['CR0', 'CR3', 'CR4', 'EFER', 'GS', 'TR', 'IDT', 'RIP', 'RSP', 'RFL', 'CPL', 'HLT']) {
    const without = REGISTERS.replace(new RegExp(`${name}( ?)=`), `X$1=`);
    t.throws(() => parseRegisters(without), { code: 'protocol' }, name);
  }
});

test('memory map: RAM of backends only, whole, with its place in the block', (t) => {
  t.deepEqual(parseMemoryMap(MEMORY_MAP, new Set(['ram', 'hot plug'])), [
    { start: 0, length: 0xc3000, block: 'ram', offset: 0 },
    { start: 0xe8000, length: 0x8000, block: 'ram', offset: 0xe8000 },
    { start: 0x100000, length: 0x7ff00000, block: 'ram', offset: 0x100000 },
    { start: 0x1_0000_0000, length: 0x8000_0000, block: 'ram', offset: 0x8000_0000 },
    { start: 0x2_0000_0000, length: 0x800_0000, block: '/objects/hot plug', offset: 0 },
  ]);
  t.throws(() => parseMemoryMap('', new Set(['ram'])), { code: 'protocol' });
});

test('cut and garbled monitor output: a result or a typed error', (t) => {
  const garble = (text: string) =>
    fc
      .record({
        at: fc.nat(text.length),
        drop: fc.nat(200),
        put: fc.string({ unit: 'binary', maxLength: 20 }),
      })
      .map(({ at, drop, put }) => text.slice(0, at) + put + text.slice(at + drop));
  const typed = (act: () => unknown): boolean => {
    try {
      act();
      return true;
    } catch (error) {
      return error instanceof DomschedError;
    }
  };
  fc.assert(
    fc.property(garble(REGISTERS), (text) => typed(() => parseRegisters(text))),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(garble(MEMORY_MAP), (text) => typed(() => parseMemoryMap(text, new Set(['ram'])))),
    {
      numRuns: 2000,
    },
  );
  t.pass();
});
