import { FRAME_SIZE } from '../frame.ts';

const GIB = 2 ** 30;
const FOUR_GIB = 4 * GIB;

/** Where a machine's RAM, which is one piece of memory in its process, lies in the guest. */
export interface Placement {
  /** Bytes from address 0 on; the rest lies from 4 GiB on. */
  readonly low: number;
  readonly total: number;
}

/**
 * Where the hole for devices may begin, which every PC has below 4 GiB: QEMU's `pc` leaves 1 GiB free, or half of one for
 * machines that fit below it; `q35` 2 GiB, or 1.25; Firecracker and kvmtool 768 MiB, Cloud Hypervisor 1 GiB; and what
 * QEMU's `max-ram-below-4g` is set to in round numbers.
 */
const HOLES = [2, 3, 2.75, 3.25, 3.5, 1, 1.5, 2.5, 3.75, 4].map((gib) => gib * GIB);

/** Placements to try, the likelier first. */
export function placements(total: number): Placement[] {
  const split = HOLES.filter((low) => low < total).map((low) => ({ low, total }));
  // A machine that fits below its hole has nothing above it.
  const whole = total <= 3.75 * GIB ? [{ low: total, total }] : [];
  return [...whole, ...split];
}

/** @returns byte of the block that a physical address of the guest is in, or -1 */
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
