import { FRAME_SIZE } from '../frame.ts';

const GIB = 2 ** 30;
const FOUR_GIB = 4 * GIB;

/** Places in the guest of a machine's RAM, whose parts follow each other. */
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

/** Memory that is contiguous in the guest and in one part of the process. */
export interface Piece {
  readonly first: number;
  readonly count: number;
  readonly part: number;
  /** Offset of its first byte in that part. */
  readonly offset: number;
}

/** @param parts memory of the process, in the guest's order; together as long as the placement */
export function piecesOf(
  { low, total }: Placement,
  parts: readonly { readonly length: number }[],
): readonly Piece[] {
  const pieces: Piece[] = [];
  let start = 0;
  for (const [part, { length }] of parts.entries()) {
    const end = start + length;
    const spans = [
      { from: start, to: Math.min(end, low), shift: 0 },
      { from: Math.max(start, low), to: Math.min(end, total), shift: FOUR_GIB - low },
    ];
    for (const { from, to, shift } of spans) {
      if (from >= to) continue;
      const [first, count] = [(from + shift) / FRAME_SIZE, (to - from) / FRAME_SIZE];
      pieces.push({ first, count, part, offset: from - start });
    }
    start = end;
  }
  return pieces;
}

/** Index in `pieces` of the one with a physical address of the guest, or -1. */
export function pieceAt(pieces: readonly Piece[], physical: number): number {
  const frame = physical / FRAME_SIZE;
  return pieces.findIndex(({ first, count }) => frame >= first && frame < first + count);
}

/** Byte after a machine's RAM as it started. */
export function endOf({ low, total }: Placement): number {
  return low < total ? FOUR_GIB + total - low : low;
}

/**
 * First address of memory that can be plugged: QEMU starts it at a whole GiB after all RAM (`hw/i386/pc.c`,
 * `pc_memory_init()`).
 */
export function pluggedStart(placement: Placement): number {
  return Math.max(FOUR_GIB, Math.ceil(endOf(placement) / GIB) * GIB);
}

/** Physical addresses of the guest. */
export interface PhysicalRange {
  readonly start: number;
  /** Address of the byte after the last. */
  readonly end: number;
}

export { FOUR_GIB };
