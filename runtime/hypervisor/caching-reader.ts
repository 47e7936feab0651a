import { FRAME_SIZE, type FrameNumber } from './frame.ts';
import { FRAME_STATUS, FrameBatch } from './frame-batch.ts';
import type { FrameReader, FrameRegion } from './types.ts';

/** 4 MiB of frames. */
const DEFAULT_FRAMES = 1024;

/**
 * Keeps whole frames for as long as a generation lasts, in front of any reader: for reads that are many and small
 * over a slow one (a dump, a hypervisor that maps). Cannot go stale: it asks for the generation at each read.
 */
export class CachingReader<F extends FrameNumber = FrameNumber> implements FrameReader<F> {
  readonly space: FrameReader<F>['space'];
  readonly physicalBits: number;
  hits = 0;
  misses = 0;
  readonly #inner: FrameReader<F>;
  readonly #generation: () => number;
  readonly #limit: number;
  readonly #frames = new Map<number, Uint8Array | null>();
  readonly #batch: FrameBatch<F>;
  #seen: number;

  /**
   * @param generation of the domain whose frames these are
   * @param limit frames kept at most
   */
  constructor(inner: FrameReader<F>, generation: () => number, limit = DEFAULT_FRAMES) {
    this.space = inner.space;
    this.physicalBits = inner.physicalBits;
    this.#inner = inner;
    this.#generation = generation;
    this.#limit = limit;
    this.#seen = generation();
    this.#batch = new FrameBatch<F>(limit * FRAME_SIZE * 2);
  }

  regions(): readonly FrameRegion<F>[] {
    return this.#inner.regions();
  }

  read(batch: FrameBatch<F>): number {
    const generation = this.#generation();
    if (generation !== this.#seen) {
      this.#frames.clear();
      this.#seen = generation;
    }
    let failed = 0;
    let start = 0;
    // Pieces that surely fit into the cache at once.
    while (start < batch.count) {
      const end = Math.min(batch.count, start + this.#limit);
      this.#fetch(batch, start, end);
      for (let i = start; i < end; i++) failed += this.#serve(batch, i);
      start = end;
    }
    return failed;
  }

  #fetch(batch: FrameBatch<F>, start: number, end: number): void {
    const wanted = new Set<number>();
    for (let i = start; i < end; i++) if (!this.#frames.has(batch.frames[i]!)) wanted.add(batch.frames[i]!);
    this.hits += end - start - wanted.size;
    this.misses += wanted.size;
    if (wanted.size === 0) return;
    if (this.#frames.size + wanted.size > this.#limit) {
      this.#frames.clear();
      for (let i = start; i < end; i++) wanted.add(batch.frames[i]!);
    }
    this.#batch.clear();
    for (const frame of wanted) this.#batch.add(frame as F, 0, FRAME_SIZE);
    this.#inner.read(this.#batch);
    for (let i = 0; i < this.#batch.count; i++) {
      const position = this.#batch.positions[i]!;
      const there = this.#batch.status[i] === FRAME_STATUS.ok;
      const content = there ? this.#batch.bytes.slice(position, position + FRAME_SIZE) : null;
      this.#frames.set(this.#batch.frames[i]!, content);
    }
  }

  #serve(batch: FrameBatch<F>, i: number): number {
    const content = this.#frames.get(batch.frames[i]!);
    const position = batch.positions[i]!;
    const offset = batch.offsets[i]!;
    const length = batch.lengths[i]!;
    if (content) {
      batch.bytes.set(content.subarray(offset, offset + length), position);
      batch.status[i] = FRAME_STATUS.ok;
      return 0;
    }
    batch.bytes.fill(0, position, position + length);
    batch.status[i] = FRAME_STATUS.absent;
    return 1;
  }
}
