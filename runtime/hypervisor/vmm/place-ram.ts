import { FRAME_SIZE } from '../frame.ts';

const GIB = 2 ** 30;
const FOUR_GIB = 4 * GIB;

/** Places in the guest of a machine's RAM, which is one piece of memory in its process. */
export interface Placement {
  /** Bytes from address 0 on; the rest starts at 4 GiB. */
  readonly low: number;
  readonly total: number;
}

/**
 * Possible starts of the hole for devices that every PC has below 4 GiB. QEMU's `pc` leaves 1 GiB, or 512 MiB if the
 * memory fits below it; `q35` 2 GiB, or 1.25; Firecracker and kvmtool 768 MiB; Cloud Hypervisor 1 GiB. The others are
 * round values of QEMU's `max-ram-below-4g`.
 */
const HOLES = [2, 3, 2.75, 3.25, 3.5, 1, 1.5, 2.5, 3.75, 4].map((gib) => gib * GIB);

/** Placements to try, likelier ones first. */
export function placements(total: number): Placement[] {
  const split = HOLES.filter((low) => low < total).map((low) => ({ low, total }));
  // Memory that fits below the hole has no part above it.
  const whole = total <= 3.75 * GIB ? [{ low: total, total }] : [];
  return [...whole, ...split];
}

/** @returns offset in the block of a physical address of the guest, or -1 */
export function blockOffset({ low, total }: Placement, physical: number): number {
  if (physical < low) return physical;
  const offset = physical - FOUR_GIB + low;
  return physical >= FOUR_GIB && offset < total ? offset : -1;
}

/** Pieces that are contiguous both in the guest and in the block. */
export function piecesOf({ low, total }: Placement): { first: number; count: number; offset: number }[] {
  const pieces = [{ first: 0, count: low / FRAME_SIZE, offset: 0 }];
  if (low < total)
    pieces.push({ first: FOUR_GIB / FRAME_SIZE, count: (total - low) / FRAME_SIZE, offset: low });
  return pieces;
}

export { FOUR_GIB };
