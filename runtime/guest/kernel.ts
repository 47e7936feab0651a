import type { SymbolName } from '../members/symbols.ts';
import { type GuestVirtual, guestVirtual } from '../memory/address.ts';
import { KERNEL_MAP } from './identify/regions.ts';
import type { IdentifiedKernel } from './identify/types.ts';

/** Address of a symbol in the running guest; undefined when the kernel does not have it. */
export function symbolAddress(kernel: IdentifiedKernel, name: SymbolName): GuestVirtual | undefined {
  const linked = kernel.layout.symbol(name);
  return linked === undefined ? undefined : guestVirtual(linked + kernel.slide);
}

/** @throws DomschedError `layout-absent-member` */
export function requireSymbolAddress(kernel: IdentifiedKernel, name: SymbolName): GuestVirtual {
  return guestVirtual(kernel.layout.requireSymbol(name) + kernel.slide);
}

/**
 * Address of one CPU's copy of a per-CPU variable.
 * @param linked the variable's address in the layout
 * @param area the value that the kernel adds to a per-CPU address for that CPU: its entry of `__per_cpu_offset`, or
 *   `x8664_pda.data_offset`
 */
export function percpuAddress(kernel: IdentifiedKernel, linked: bigint, area: bigint): GuestVirtual {
  // Per-CPU variables are linked inside the image, and move with it, until "x86: make percpu symbols zerobased on SMP",
  // 2.6.30, and again since 6.15; in between their addresses are offsets from 0.
  const moved = linked >= KERNEL_MAP ? linked + kernel.slide : linked;
  return guestVirtual(moved + area);
}
