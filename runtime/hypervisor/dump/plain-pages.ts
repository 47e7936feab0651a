import { FRAME_SIZE, type FrameNumber } from '../frame.ts';
import type { FrameRegion } from '../types.ts';
import type { DumpPages } from './content.ts';
import type { DumpBytes } from './file.ts';
import { type DumpRun, RunIndex } from './runs.ts';

/** Frames that are stored in the file as they were in memory. */
export class PlainPages implements DumpPages {
  readonly #file: DumpBytes;
  readonly #index: RunIndex;

  /** @param runs runs of frames; where several mappings of one frame overlap, the first counts */
  constructor(file: DumpBytes, runs: readonly DumpRun[]) {
    this.#file = file;
    this.#index = new RunIndex(runs, FRAME_SIZE);
  }

  regions(): readonly FrameRegion[] {
    return this.#index.runs.map(({ first, count }) => ({ first: first as FrameNumber, count }));
  }

  together(frame: number): number {
    const run = this.#index.runAt(frame);
    return run === undefined ? 0 : run.first + run.count - frame;
  }

  read(frame: number, offset: number, length: number, into: Uint8Array, position: number): boolean {
    const place = this.#index.offsetOf(frame);
    if (place < 0) return false;
    // Every run was checked against the size of the file, so the file must have been cut since.
    if (this.#file.read(into, position, length, place + offset) !== length)
      this.#file.corrupt(`frame ${frame}`, place);
    return true;
  }
}

/** The whole frames in a piece of physical memory. */
export function wholeFrames(physical: number, size: number, offset: number): DumpRun {
  const first = Math.ceil(physical / FRAME_SIZE);
  const skipped = first * FRAME_SIZE - physical;
  return { first, count: Math.max(0, Math.floor((size - skipped) / FRAME_SIZE)), offset: offset + skipped };
}
