import type { FrameNumber } from './frame.ts';
import type { FrameBatch } from './frame-batch.ts';
import type { FrameReader, FrameRegion, FrameWrite, FrameWriter } from './types.ts';

/** What went through a reader or writer. */
export interface FrameMetrics {
  /** Calls and the ranges in them. */
  calls: number;
  ranges: number;
  bytes: number;
  failed: number;
  /** Our own time in the calls, in nanoseconds. */
  nanoseconds: number;
}

export function noMetrics(): FrameMetrics {
  return { calls: 0, ranges: 0, bytes: 0, failed: 0, nanoseconds: 0 };
}

/** Counts what goes through a reader. */
export class MeteredReader<F extends FrameNumber = FrameNumber> implements FrameReader<F> {
  readonly space: FrameReader<F>['space'];
  readonly physicalBits: number;
  readonly metrics = noMetrics();
  readonly #inner: FrameReader<F>;

  constructor(inner: FrameReader<F>) {
    this.space = inner.space;
    this.physicalBits = inner.physicalBits;
    this.#inner = inner;
  }

  regions(): readonly FrameRegion<F>[] {
    return this.#inner.regions();
  }

  read(batch: FrameBatch<F>): number {
    const { metrics } = this;
    const begin = performance.now();
    metrics.calls += 1;
    metrics.ranges += batch.count;
    try {
      const failed = this.#inner.read(batch);
      for (let i = 0; i < batch.count; i++) metrics.bytes += batch.lengths[i]!;
      metrics.failed += failed;
      return failed;
    } catch (error) {
      metrics.failed += batch.count;
      throw error;
    } finally {
      metrics.nanoseconds += (performance.now() - begin) * 1e6;
    }
  }
}

/** Counts what goes through a writer. */
export class MeteredWriter<F extends FrameNumber = FrameNumber> implements FrameWriter<F> {
  readonly metrics = noMetrics();
  readonly #inner: FrameWriter<F>;

  constructor(inner: FrameWriter<F>) {
    this.#inner = inner;
  }

  write(writes: readonly FrameWrite<F>[]): void {
    const { metrics } = this;
    const begin = performance.now();
    metrics.calls += 1;
    metrics.ranges += writes.length;
    try {
      this.#inner.write(writes);
      for (const { bytes } of writes) metrics.bytes += bytes.length;
    } catch (error) {
      metrics.failed += writes.length;
      throw error;
    } finally {
      metrics.nanoseconds += (performance.now() - begin) * 1e6;
    }
  }
}
