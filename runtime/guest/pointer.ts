import { type GuestVirtual, guestVirtual } from '../memory/address.ts';

const WORD = 0x1_0000_0000;

/**
 * A kernel pointer as a JavaScript number: the 64-bit word taken as signed. Kernel addresses are at the top of the
 * address space, so they become small negative numbers: -2^47 and up with 4-level paging, -2^56 and up with 5-level
 * paging. Multiples of 8 of that size are exact in a double, so snapshots can compare, hash and offset addresses
 * without a bigint per word.
 */
export type KernelPointer = number & { readonly kernelPointer: unique symbol };

/** Result of {@link kernelPointer} for a word that is no pointer to an aligned kernel object. */
export const NO_POINTER = 0 as KernelPointer;

/** Lowest upper half of a kernel address with 5-level paging (Intel SDM vol. 3A, 4.5: bit 56 and up set). */
const LOWEST_HIGH_HALF = 0xff00_0000;
/** The last page is never mapped: the kernel keeps error codes there (Linux include/linux/err.h, MAX_ERRNO). */
const LAST_PAGE = -4096;

/**
 * Reads the two halves of a word as a pointer to a kernel object.
 * @returns {@link NO_POINTER} for null, user addresses, error codes and values that are not 8-byte aligned
 */
export function kernelPointer(low: number, high: number): KernelPointer {
  if (high < LOWEST_HIGH_HALF || (low & 7) !== 0) return NO_POINTER;
  const value = (high - WORD) * WORD + low;
  return value >= LAST_PAGE ? NO_POINTER : (value as KernelPointer);
}

/** Moves a pointer by `bytes`, a multiple of 8; negative moves it back. */
export function movePointer(pointer: KernelPointer, bytes: number): KernelPointer {
  return (pointer + bytes) as KernelPointer;
}

/** The same address with its full 64 bits. */
export function pointerAddress(pointer: KernelPointer): GuestVirtual {
  return guestVirtual(BigInt(pointer));
}

/** The pointer for an address; {@link NO_POINTER} as in {@link kernelPointer}. */
export function addressPointer(address: GuestVirtual): KernelPointer {
  return kernelPointer(Number(address & 0xffff_ffffn), Number(address >> 32n));
}
