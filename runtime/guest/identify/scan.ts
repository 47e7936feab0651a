import { setImmediate } from 'node:timers/promises';
import type { MemoryPart } from '../../../extractor/contract.ts';
import { FRAME_SIZE, type FrameNumber } from '../../hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../../hypervisor/frame-batch.ts';
import type { Domain, FrameRegion } from '../../hypervisor/types.ts';
import { guestVirtual } from '../../memory/address.ts';
import { ReadBatch } from '../../memory/read-batch.ts';
import type { AddressSpace } from '../../memory/types.ts';
import { isFault } from '../../memory/walker.ts';
import { BANNER_START, bannerIn } from './banner.ts';
import { KERNEL_MAP, KERNEL_MAP_SIZE } from './regions.ts';

/** Frames that one read of a scan asks for. */
const CHUNK_FRAMES = 256;
const CHUNK = CHUNK_FRAMES * FRAME_SIZE;
/** Most physical memory to search: kernels are loaded low, and a scan has to end. */
const MAX_SCAN_BYTES = 8 * 2 ** 30;
/** Most bytes of the image to search once its start is found. */
const MAX_IMAGE_BYTES = 128 * 2 ** 20;
const MAX_FOUND = 64;

export interface FoundBanner {
  readonly banner: string;
  /** Physical address. */
  readonly address: number;
}

/**
 * Searches physical memory for kernel banners, for domains without registers. {@link MAX_SCAN_BYTES} and
 * {@link MAX_FOUND} bound it.
 * @yields banners in ascending order, including copies in logs and page caches
 */
export function* scanPhysical<F extends FrameNumber>(domain: Domain<F>): Generator<FoundBanner> {
  let found = 0;
  const batch = new FrameBatch<F>(2 * CHUNK_FRAMES * FRAME_SIZE);
  let scanned = 0;
  for (const { first, count } of usedRegions(domain)) {
    for (let done = 0; done < count && scanned < MAX_SCAN_BYTES; done += CHUNK_FRAMES) {
      // One frame more than the step, so that a banner across the border is whole in one of the two chunks.
      const frames = Math.min(CHUNK_FRAMES + 1, count - done);
      batch.clear();
      for (let i = 0; i < frames; i++) batch.add((first + done + i) as F, 0, FRAME_SIZE);
      domain.frames.read(batch);
      scanned += frames * FRAME_SIZE;
      const bytes = Buffer.from(batch.bytes.buffer, batch.bytes.byteOffset, frames * FRAME_SIZE);
      for (const offset of occurrences(bytes, CHUNK)) {
        if (batch.status[Math.floor(offset / FRAME_SIZE)] !== FRAME_STATUS.ok) continue;
        const banner = bannerIn(bytes.subarray(offset));
        if (banner === undefined) continue;
        yield { banner, address: (first + done) * FRAME_SIZE + offset };
        found += 1;
        if (found >= MAX_FOUND) return;
      }
    }
  }
}

function* usedRegions<F extends FrameNumber>({ frames }: Domain<F>): Generator<FrameRegion<F>> {
  for (const region of frames.regions()) {
    if (frames.filled === undefined) yield region;
    else yield* frames.filled(region);
  }
}

/**
 * Searches the mapped image of the kernel for its banner, from its first page on. Parts that cannot be executed come
 * first, because constants are there; the rest is for kernels that do not separate the two.
 * @param enough whether a banner is the wanted one, which ends the search
 * @returns possible banners, each once, at most {@link MAX_FOUND}; the wanted one is last
 */
export function scanImage(space: AddressSpace, start: bigint, enough: (banner: string) => boolean): string[] {
  const found = scanChunks(space, start, enough, false);
  return found.length > 0 ? found : scanChunks(space, start, enough, true);
}

function scanChunks(
  space: AddressSpace,
  start: bigint,
  enough: (banner: string) => boolean,
  executable: boolean,
): string[] {
  const batch = new ReadBatch(4 * CHUNK);
  const found = new Set<string>();
  for (const address of imageChunks(space, start, executable)) {
    if (found.size >= MAX_FOUND) break;
    // One page more, for a banner across the border.
    const content = readPages(space, batch, address, CHUNK_FRAMES + 1);
    for (const offset of occurrences(content, CHUNK)) {
      const banner = bannerIn(content.subarray(offset));
      if (banner === undefined) continue;
      found.add(banner);
      if (enough(banner)) return [...found];
    }
  }
  return [...found];
}

/** Pieces of {@link CHUNK} bytes of the mapped image that can, or cannot, be executed. */
function* imageChunks(space: AddressSpace, start: bigint, executable: boolean): Generator<bigint> {
  const end = Math.min(MAX_IMAGE_BYTES, Number(KERNEL_MAP + KERNEL_MAP_SIZE - start));
  for (let done = 0; done < end; done += CHUNK) {
    const where = space.probe(guestVirtual(start + BigInt(done)));
    // If even the table of small pages is missing, so are all 2 MiB under it.
    if (isFault(where) ? where.level > 1 : where.executable !== executable) continue;
    yield start + BigInt(done);
  }
}

/** Reads page by page, because mapped pages may follow a hole. Holes read as zero. */
function readPages(space: AddressSpace, batch: ReadBatch, address: bigint, pages: number): Buffer {
  batch.clear();
  for (let page = 0; page < pages; page++) {
    batch.add(guestVirtual(address + BigInt(page * FRAME_SIZE)), FRAME_SIZE);
  }
  space.read(batch);
  const { bytes } = batch;
  return Buffer.from(bytes.buffer, bytes.byteOffset + batch.positions[0]!, pages * FRAME_SIZE);
}

/**
 * Copies the parts of a mapped image that may hold a kernel's tables: those neither executable nor writable; if the
 * kernel does not separate them yet, those not executable, or everything. The result has one piece for each run of
 * addresses. Other guests need not wait for the copy: it yields after every {@link CHUNK}.
 *
 * @param whole copy everything not executable, for a caller that cannot ask for single words of the rest
 */
export async function copyImage(space: AddressSpace, start: bigint, whole: boolean): Promise<MemoryPart[]> {
  const data = [...imageChunks(space, start, false)];
  const constant = whole ? [] : data.filter((address) => isConstant(space, address));
  const chunks =
    [constant, data, [...imageChunks(space, start, true)]].find(({ length }) => length > 0) ?? [];
  const batch = new ReadBatch(2 * CHUNK);
  const parts: MemoryPart[] = [];
  for (let first = 0; first < chunks.length; ) {
    let count = 1;
    while (chunks[first + count] === chunks[first]! + BigInt(count * CHUNK)) count++;
    const bytes = new Uint8Array(count * CHUNK);
    for (let index = 0; index < count; index++) {
      bytes.set(readPages(space, batch, chunks[first + index]!, CHUNK_FRAMES), index * CHUNK);
      await setImmediate();
    }
    parts.push({ address: chunks[first]!, bytes });
    first += count;
  }
  return parts;
}

/** Whether the first or the last page of a piece is read-only. */
function isConstant(space: AddressSpace, address: bigint): boolean {
  return [0, CHUNK - FRAME_SIZE].some((inside) => {
    const where = space.probe(guestVirtual(address + BigInt(inside)));
    return !isFault(where) && !where.writable;
  });
}

function* occurrences(bytes: Buffer, before: number): Generator<number> {
  for (let at = bytes.indexOf(BANNER_START, 0, 'latin1'); at >= 0 && at < before; ) {
    yield at;
    at = bytes.indexOf(BANNER_START, at + 1, 'latin1');
  }
}
