import { DomschedError } from '../../error.ts';
import type { VcpuRegisters } from '../types.ts';

const MAX_VCPUS = 4096;

/**
 * Parses the output of the monitor's `info registers -a` (QEMU target/i386/cpu-dump.c).
 * @returns one entry per vCPU that the guest has started
 * @throws DomschedError `protocol` for other text; `guest-inconsistent` when a vCPU is not in 64-bit mode
 */
export function parseRegisters(text: string): VcpuRegisters[] {
  const blocks = text.split(/^\s*CPU#/m).slice(1);
  if (blocks.length === 0 || blocks.length > MAX_VCPUS) {
    throw new DomschedError('protocol', 'info registers -a lists no vCPUs', { output: text.slice(0, 200) });
  }
  const started = blocks.filter((block) => !waitsForStart(block));
  return (started.length > 0 ? started : blocks).map(parseBlock).sort((a, b) => a.vcpu - b.vcpu);
}

/** Whether it is halted in the mode after INIT: the kernel uses fewer CPUs (`maxcpus=`), or it was just plugged in. */
function waitsForStart(block: string): boolean {
  return /^EIP=/m.test(block) && / HLT=1\s*$/m.test(block);
}

function parseBlock(block: string): VcpuRegisters {
  const vcpu = Number(/^(\d+)/.exec(block)?.[1] ?? Number.NaN);
  if (/^EIP=/m.test(block)) {
    throw new DomschedError(
      'guest-inconsistent',
      `vCPU ${vcpu} is not in 64-bit mode; wait until the guest has booted, only 64-bit guests are handled`,
      { vcpu },
    );
  }
  const capture = (pattern: RegExp, what: string, group = 1): string => {
    const value = pattern.exec(block)?.[group];
    if (value === undefined) {
      throw new DomschedError('protocol', `info registers -a has no ${what} for vCPU ${vcpu}`, {
        vcpu,
        what,
      });
    }
    return value;
  };
  const hex = (pattern: RegExp, what: string): bigint => BigInt(`0x${capture(pattern, what)}`);
  if (!Number.isInteger(vcpu)) throw new DomschedError('protocol', 'info registers -a numbers no vCPU');
  return {
    vcpu,
    cr0: hex(/^CR0=([0-9a-f]{8,16}) /m, 'CR0'),
    cr3: hex(/ CR3=([0-9a-f]{8,16}) /m, 'CR3'),
    cr4: hex(/ CR4=([0-9a-f]{8,16})\s*$/m, 'CR4'),
    efer: hex(/^EFER=([0-9a-f]{16})\s*$/m, 'EFER'),
    gsBase: hex(/^GS =[0-9a-f]{4} ([0-9a-f]{16}) /m, 'GS'),
    kernelGsBase: undefined,
    tssBase: hex(/^TR =[0-9a-f]{4} ([0-9a-f]{16}) /m, 'TR'),
    idtBase: hex(/^IDT=\s+([0-9a-f]{16}) /m, 'IDT'),
    idtLimit: Number(`0x${capture(/^IDT=\s+[0-9a-f]{16} ([0-9a-f]{8})\s*$/m, 'IDT limit')}`),
    rip: hex(/^RIP=([0-9a-f]{16}) /m, 'RIP'),
    rsp: hex(/ RSP=([0-9a-f]{16})\s*$/m, 'RSP'),
    rflags: hex(/ RFL=([0-9a-f]{8,16}) /m, 'RFL'),
    cpl: Number(capture(/ CPL=([0-3]) /, 'CPL')),
    halted: capture(/ HLT=([01])\s*$/m, 'HLT') === '1',
  };
}
