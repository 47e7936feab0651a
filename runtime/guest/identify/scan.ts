import { FRAME_SIZE, type FrameNumber } from '../../hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../hypervisor/frame-batch.ts';
import type { Domain } from '../../hypervisor/types.ts';
import { guestVirtual } from '../../memory/address.ts';
import { ReadBatch } from '../../memory/read-batch.ts';
import type { AddressSpace } from '../../memory/types.ts';
import { BANNER_START, bannerIn, MAX_BANNER } from './banner.ts';
import { KERNEL_MAP, KERNEL_MAP_SIZE } from './regions.ts';

/** Frames that one read of a scan asks for. */
const CHUNK_FRAMES = 256;
/** Physical memory that is searched at most: kernels are loaded low, and a scan has to end. */
const MAX_SCAN_BYTES = 8 * 2 ** 30;
/** Image that is searched at most once its start is found. */
const MAX_IMAGE_BYTES = 128 * 2 ** 20;
const MAX_FOUND = 64;

export interface FoundBanner {
  readonly banner: string;
  /** Physical address. */
  readonly address: number;
}

/**
 * Searches physical memory for kernel banners, for domains without registers. Bounded by {@link MAX_SCAN_BYTES}.
 * @returns in ascending order; copies in logs and page caches are among them
 */
export function scanPhysical<F extends FrameNumber>(domain: Domain<F>): FoundBanner[] {
  const found: FoundBanner[] = [];
  const batch = new FrameBatch<F>(2 * CHUNK_FRAMES * FRAME_SIZE);
  let scanned = 0;
  for (const { first, count } of domain.frames.regions()) {
    for (let done = 0; done < count && scanned < MAX_SCAN_BYTES; done += CHUNK_FRAMES) {
      // One frame more than the step, so that a banner over the border is whole in one of the two chunks.
      const frames = Math.min(CHUNK_FRAMES + 1, count - done);
      batch.clear();
      for (let i = 0; i < frames; i++) batch.add((first + done + i) as F, 0, FRAME_SIZE);
      domain.frames.read(batch);
      scanned += frames * FRAME_SIZE;
      const bytes = Buffer.from(batch.bytes.buffer, batch.bytes.byteOffset, frames * FRAME_SIZE);
      for (const offset of occurrences(bytes, CHUNK_FRAMES * FRAME_SIZE)) {
        if (batch.status[Math.floor(offset / FRAME_SIZE)] !== FRAME_STATUS.ok) continue;
        const banner = bannerIn(bytes.subarray(offset));
        if (banner !== undefined) found.push({ banner, address: (first + done) * FRAME_SIZE + offset });
        if (found.length >= MAX_FOUND) return found;
      }
    }
  }
  return found;
}

/** Searches the mapped image of the kernel for its banner: says who it is when no layout fits. */
export function scanImage(space: AddressSpace, start: bigint): string | undefined {
  const chunk = CHUNK_FRAMES * FRAME_SIZE;
  const batch = new ReadBatch(4 * chunk);
  const end = Math.min(MAX_IMAGE_BYTES, Number(KERNEL_MAP + KERNEL_MAP_SIZE - start));
  for (let done = 0; done < end; done += chunk) {
    batch.clear();
    batch.add(guestVirtual(start + BigInt(done)), chunk + MAX_BANNER);
    space.read(batch);
    const bytes = Buffer.from(batch.content(0));
    for (const offset of occurrences(bytes, chunk)) {
      const banner = bannerIn(bytes.subarray(offset));
      if (banner !== undefined) return banner;
    }
  }
  return undefined;
}

function* occurrences(bytes: Buffer, before: number): Generator<number> {
  for (let at = bytes.indexOf(BANNER_START, 0, 'latin1'); at >= 0 && at < before; ) {
    yield at;
    at = bytes.indexOf(BANNER_START, at + 1, 'latin1');
  }
}
