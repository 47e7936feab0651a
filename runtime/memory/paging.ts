import { DomschedError } from '../error.ts';
import type { VcpuRegisters } from '../hypervisor/types.ts';
import type { PagingMode } from './types.ts';

const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
const EFER_NXE = 1n << 11n;

/** Address split of 4-level paging (Intel SDM vol. 3A, 4.5): 48-bit addresses. */
export const FOUR_LEVEL: readonly number[] = [9, 9, 9, 9, 12];
/** Address split of 5-level paging: 57-bit addresses. */
export const FIVE_LEVEL: readonly number[] = [9, 9, 9, 9, 9, 12];

/**
 * The way in which a vCPU translates addresses now.
 * @throws DomschedError `guest-inconsistent` if it is not in long mode: the guest is still booting
 */
export function pagingMode(registers: VcpuRegisters, physicalBits: number): PagingMode {
  const { cr0, cr4, efer } = registers;
  if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || !(efer & EFER_LMA)) {
    throw new DomschedError(
      'guest-inconsistent',
      `vCPU ${registers.vcpu} is not in 64-bit mode; wait until the guest has booted, only 64-bit guests are handled`,
      { vcpu: registers.vcpu, cr0, cr4, efer },
    );
  }
  return {
    split: cr4 & CR4_LA57 ? FIVE_LEVEL : FOUR_LEVEL,
    physicalBits,
    noExecute: (efer & EFER_NXE) !== 0n,
    largePages: [2, 3],
  };
}

/** Physical address of the topmost table in CR3, without PCID and the flags above bit 51. */
export function tableRoot(cr3: bigint): number {
  return Number(cr3 & 0x000f_ffff_ffff_f000n);
}

/**
 * Physical address of the kernel's own topmost table under page-table isolation: the pair of tables is 8 KiB aligned
 * and bit 12 selects the user's half (Linux arch/x86/include/asm/pgtable.h, PTI_PGTABLE_SWITCH_BIT). Without isolation
 * bit 12 belongs to the address, so the result is a candidate to try, not a fact.
 */
export function kernelTableRoot(cr3: bigint): number {
  return tableRoot(cr3 & ~0x1000n);
}

/** Whether all bits above the translated ones are copies of the highest translated one. */
export function isCanonical(address: bigint, mode: PagingMode): boolean {
  const bits = mode.split.reduce((sum, width) => sum + width, 0);
  return BigInt.asUintN(64, BigInt.asIntN(bits, address)) === address;
}
