import { guestVirtual } from '../../memory/address.ts';
import type { AddressSpace } from '../../memory/types.ts';
import { isFault } from '../../memory/walker.ts';

/** x86-64 kernels map their own image here (Linux arch/x86/include/asm/page_64_types.h, __START_KERNEL_map). */
export const KERNEL_MAP = 0xffff_ffff_8000_0000n;
/** Bytes that the image with its slide may take (KERNEL_IMAGE_SIZE with CONFIG_RANDOMIZE_BASE). */
export const KERNEL_MAP_SIZE = 0x4000_0000n;
/** The image moves by multiples of this (CONFIG_PHYSICAL_ALIGN, at least 2 MiB on x86-64). */
export const SLIDE_ALIGNMENT = 0x20_0000n;

/** Whether a difference of addresses can be a slide. */
export function isSlide(value: bigint): boolean {
  return value >= 0n && value < KERNEL_MAP_SIZE && value % SLIDE_ALIGNMENT === 0n;
}

/**
 * First mapped page of the kernel's image: kernels unmap everything below their `_text` (Linux arch/x86/mm/init_64.c,
 * cleanup_highmap).
 */
export function imageStart(space: AddressSpace): bigint | undefined {
  for (let offset = 0n; offset < KERNEL_MAP_SIZE; offset += SLIDE_ALIGNMENT) {
    const address = guestVirtual(KERNEL_MAP + offset);
    if (!isFault(space.probe(address))) return address;
  }
  return undefined;
}
