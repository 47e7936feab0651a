import { FRAME_SIZE, type FrameNumber } from '../../hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../hypervisor/frame-batch.ts';
import type { Domain } from '../../hypervisor/types.ts';
import { guestVirtual } from '../../memory/address.ts';
import { PagedAddressSpace } from '../../memory/address-space.ts';
import { FIVE_LEVEL, FOUR_LEVEL } from '../../memory/paging.ts';
import type { AddressSpace } from '../../memory/types.ts';
import { isFault } from '../../memory/walker.ts';
import { imageStart } from './regions.ts';

/** Most bytes between a banner and its image's tables: no image is longer. */
const MAX_DISTANCE = 128 * 2 ** 20;
/** This entry of a topmost table maps the kernel's image. */
const LAST_ENTRY = FRAME_SIZE - 8;
const PRESENT = 1;
const BATCH = 4096;
/** Most tables to try: those of programs have the same last entry as the kernel's own, but are elsewhere. */
const MAX_TRIES = 64;

/**
 * Finds where memory without registers maps a kernel's image. A kernel's first tables are part of its image, so one of
 * the frames around its banner is a topmost table that maps the banner.
 *
 * @param banner physical address
 */
export function mappedImage(
  domain: Domain<FrameNumber>,
  banner: number,
): { space: AddressSpace; start: bigint } | undefined {
  let tries = 0;
  for (const frame of candidates(domain, banner)) {
    if (++tries > MAX_TRIES) return undefined;
    for (const split of [FOUR_LEVEL, FIVE_LEVEL]) {
      const mode = { split, physicalBits: domain.frames.physicalBits, noExecute: true, largePages: [2, 3] };
      const space = new PagedAddressSpace(domain, mode, frame * FRAME_SIZE);
      const start = imageStart(space);
      const first = start === undefined ? undefined : space.probe(guestVirtual(start));
      if (start === undefined || first === undefined || isFault(first)) continue;
      const distance = banner - (first.frame * FRAME_SIZE + first.offset);
      if (distance < 0 || distance > MAX_DISTANCE) continue;
      const found = space.probe(guestVirtual(start + BigInt(distance)));
      if (!isFault(found) && found.frame === Math.floor(banner / FRAME_SIZE)) return { space, start };
    }
  }
  return undefined;
}

/** Frames around the banner whose last entry leads to a frame around it too. */
function* candidates(domain: Domain<FrameNumber>, banner: number): Generator<FrameNumber> {
  const middle = Math.floor(banner / FRAME_SIZE);
  const from = middle - MAX_DISTANCE / FRAME_SIZE;
  const to = middle + MAX_DISTANCE / FRAME_SIZE;
  const batch = new FrameBatch<FrameNumber>(BATCH * 8);
  for (const { first, count } of domain.frames.regions()) {
    const end = Math.min(first + count, to);
    for (let start = Math.max(first, from); start < end; start += BATCH) {
      const frames = Math.min(BATCH, end - start);
      batch.clear();
      for (let index = 0; index < frames; index++) batch.add((start + index) as FrameNumber, LAST_ENTRY, 8);
      domain.frames.read(batch);
      for (let index = 0; index < frames; index++) {
        if (batch.status[index] !== FRAME_STATUS.ok) continue;
        const entry = batch.view.getBigUint64(batch.positions[index]!, true);
        if ((Number(entry & 0xffn) & PRESENT) === 0) continue;
        const next = Number((entry & 0x000f_ffff_ffff_f000n) / BigInt(FRAME_SIZE));
        if (next >= from && next < to) yield (start + index) as FrameNumber;
      }
    }
  }
}
