import { FRAME_SIZE } from '../../hypervisor/frame.ts';
import type { VcpuRegisters } from '../../hypervisor/types.ts';
import type { LayoutView } from '../../layout/view.ts';
import { guestVirtual } from '../../memory/address.ts';
import type { AddressSpace } from '../../memory/types.ts';
import { isFault } from '../../memory/walker.ts';
import { tryRead } from './banner.ts';
import { imageStart, isSlide, KERNEL_MAP, SLIDE_ALIGNMENT } from './regions.ts';
import type { Derivation } from './types.ts';

/** Most per-CPU areas that GS bases are compared with. */
const MAX_CPUS = 4096;
const GATE_SIZE = 16;

/** Facts that a guest shows before its kernel is known. */
export interface Observation {
  readonly registers: readonly VcpuRegisters[];
  /** First mapped page of the image. */
  readonly imageStart: bigint | undefined;
  /** Handler of exception 0, from the first vCPU's IDT. */
  readonly divideErrorHandler: bigint | undefined;
}

export function observe(space: AddressSpace, registers: readonly VcpuRegisters[]): Observation {
  return {
    registers,
    imageStart: imageStart(space),
    divideErrorHandler: registers
      .map((vcpu) => gateHandler(space, vcpu.idtBase))
      .find((found) => found !== undefined),
  };
}

/** Handler in the first gate of an IDT (Intel SDM vol. 3A, 6.14.1). */
function gateHandler(space: AddressSpace, base: bigint): bigint | undefined {
  if (base === 0n) return undefined;
  const gate = tryRead(space, guestVirtual(base), GATE_SIZE);
  if (gate === undefined) return undefined;
  const view = new DataView(gate.buffer, gate.byteOffset, GATE_SIZE);
  const low = view.getUint16(0, true);
  const middle = view.getUint16(6, true);
  const high = view.getUint32(8, true);
  const present = (gate[5]! & 0x80) !== 0;
  return present ? (BigInt(high) << 32n) | (BigInt(middle) << 16n) | BigInt(low) : undefined;
}

/** Only kernels that can be moved have this variable (Linux arch/x86/kernel/head_64.S; CONFIG_RELOCATABLE, 2.6.22). */
export function isRelocatable(layout: LayoutView): boolean {
  return layout.symbol('phys_base') !== undefined;
}

/**
 * All slides that independent facts give for this layout: the IDT's handler of exception 0, and the first mapped page
 * of the image. A kernel that cannot be moved must be in memory where it was linked.
 */
export function slides(layout: LayoutView, space: AddressSpace, seen: Observation): Derivation[] {
  const found: Derivation[] = [];
  // "x86/entry: Convert Divide Error to IDTENTRY", 5.8: divide_error became asm_exc_divide_error.
  const handler = layout.symbol('asm_exc_divide_error') ?? layout.symbol('divide_error');
  if (handler !== undefined && seen.divideErrorHandler !== undefined) {
    found.push({ of: 'slide', from: 'IDT entry 0', value: seen.divideErrorHandler - handler });
  }
  const text = layout.symbol('_text') ?? layout.symbol('_stext');
  if (text !== undefined && seen.imageStart !== undefined && isRelocatable(layout)) {
    const start = text - (text % SLIDE_ALIGNMENT);
    found.push({ of: 'slide', from: 'first mapped page of the kernel', value: seen.imageStart - start });
  }
  if (isRelocatable(layout)) return found;
  found.push({ of: 'slide', from: 'a kernel that cannot be moved', value: 0n });
  const banner = layout.symbol('linux_banner');
  const where = banner === undefined ? undefined : physicalAddress(space, banner);
  if (banner !== undefined && where !== undefined) {
    found.push({ of: 'slide', from: 'place of the image in memory', value: where - (banner - KERNEL_MAP) });
  }
  return found;
}

/** Whether a vCPU's kernel GS base is where the kernel's own table of per-CPU areas has one, under this slide. */
export function gsConfirms(
  layout: LayoutView,
  space: AddressSpace,
  seen: Observation,
  slide: bigint,
): Derivation | undefined {
  const table = layout.symbol('__per_cpu_offset') ?? layout.symbol('_cpu_pda');
  if (table === undefined) return undefined;
  const bases = new Set(seen.registers.map(kernelGs).filter((base) => base !== undefined && base !== 0n));
  for (let cpu = 0; cpu < Math.min(MAX_CPUS, 4 * seen.registers.length + 4); cpu++) {
    const entry = tryRead(space, guestVirtual(table + slide + BigInt(8 * cpu)), 8);
    if (entry === undefined) return undefined;
    const value = new DataView(entry.buffer, entry.byteOffset, 8).getBigUint64(0, true);
    if (value !== 0n && bases.has(value)) {
      return { of: 'slide', from: 'GS base in the table of per-CPU areas', value: slide };
    }
  }
  return undefined;
}

function kernelGs(vcpu: VcpuRegisters): bigint | undefined {
  return vcpu.cpl === 0 ? vcpu.gsBase : vcpu.kernelGsBase;
}

/** Whether this kernel can have this slide. */
export function possible(layout: LayoutView, slide: bigint): boolean {
  return isRelocatable(layout) ? isSlide(slide) : slide === 0n;
}

/**
 * `phys_base` by two ways that must agree: where the page tables put the image, and the kernel's own variable.
 * @returns an empty list when the image is not mapped
 */
export function physBases(layout: LayoutView, space: AddressSpace, slide: bigint): Derivation[] {
  const text = layout.symbol('linux_banner');
  if (text === undefined) return [];
  const address = guestVirtual(text + slide);
  const physical = physicalAddress(space, address);
  if (physical === undefined) return [];
  const mapped: Derivation = {
    of: 'physBase',
    from: 'page tables',
    value: physical - (address - KERNEL_MAP),
  };
  const variable = layout.symbol('phys_base');
  // A kernel that cannot be moved is at its link-time address, relative to the start of the mapping.
  if (variable === undefined)
    return [mapped, { of: 'physBase', from: 'a kernel that cannot be moved', value: 0n }];
  const noted = tryRead(space, guestVirtual(variable + slide), 8);
  if (noted === undefined) return [mapped];
  const value = new DataView(noted.buffer, noted.byteOffset, 8).getBigInt64(0, true);
  return [mapped, { of: 'physBase', from: 'the variable phys_base', value }];
}

function physicalAddress(space: AddressSpace, address: bigint): bigint | undefined {
  const where = space.probe(guestVirtual(address));
  return isFault(where) ? undefined : BigInt(where.frame) * BigInt(FRAME_SIZE) + BigInt(where.offset);
}
