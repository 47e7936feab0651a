import { FRAME_SIZE, type FrameNumber } from '../frame.ts';
import type { FrameRegion } from '../types.ts';
import type { DumpPages } from './content.ts';
import type { DumpBytes } from './file.ts';
import { type DumpRun, RunIndex } from './runs.ts';

/** Frames that are in the file as they were in memory. */
export class PlainPages implements DumpPages {
  readonly #file: DumpBytes;
  readonly #index: RunIndex;

  /** @param runs of frames; where they overlap, as those of different mappings of one frame do, the first is read */
  constructor(file: DumpBytes, runs: readonly DumpRun[]) {
    this.#file = file;
    this.#index = new RunIndex(runs, FRAME_SIZE);
  }

  regions(): readonly FrameRegion[] {
    return this.#index.runs.map(({ first, count }) => ({ first: first as FrameNumber, count }));
  }

  read(frame: number, offset: number, length: number, into: Uint8Array, position: number): boolean {
    const place = this.#index.offsetOf(frame);
    if (place < 0) return false;
    // Every run was held against the size of the file: if it is not there now, the file was cut.
    if (this.#file.read(into, position, length, place + offset) !== length)
      this.#file.corrupt(`frame ${frame}`, place);
    return true;
  }
}

/** The whole frames of a run of physical memory. */
export function wholeFrames(physical: number, size: number, offset: number): DumpRun {
  const first = Math.ceil(physical / FRAME_SIZE);
  const skipped = first * FRAME_SIZE - physical;
  return { first, count: Math.max(0, Math.floor((size - skipped) / FRAME_SIZE)), offset: offset + skipped };
}
