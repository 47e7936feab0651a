import path from 'node:path';
import { FRAME_SIZE, type FrameNumber } from '../frame.ts';
import { FRAME_STATUS, type FrameBatch } from '../frame-batch.ts';
import type {
  DomainIdentity,
  DomainState,
  FrameReader,
  FrameRegion,
  ReadOnlyDomain,
  RegisterReader,
} from '../types.ts';
import type { DumpContent } from './content.ts';
import { DumpFile } from './file.ts';
import { readDump } from './open.ts';

/** No dump says how many address bits its processor had. */
const PHYSICAL_BITS = 52;

/** A memory dump: a domain that can only be read. */
export class DumpDomain implements ReadOnlyDomain {
  readonly identity: DomainIdentity;
  readonly format: DumpContent['format'];
  readonly frames: FrameReader;
  readonly registers?: RegisterReader;
  /** A dump does not change: what was read once holds for good. */
  readonly generation = 0;
  /** Of the dump, where it has registers. */
  readonly vcpus: number;
  readonly #file: DumpFile;

  /**
   * @param lowBytes see {@link readDump}
   * @throws DomschedError `host-unreachable`, `dump-corrupt`, `dump-unsupported`
   */
  constructor(file: string, lowBytes?: number) {
    this.#file = new DumpFile(file);
    try {
      const content = readDump(this.#file, lowBytes);
      const { registers } = content;
      this.format = content.format;
      this.frames = new DumpFrames(this.#file, content);
      this.vcpus = registers?.length ?? 0;
      if (registers !== undefined) this.registers = { read: async () => registers };
    } catch (error) {
      this.#file.close();
      throw error;
    }
    const suffix = lowBytes === undefined ? '' : `,low=${lowBytes}`;
    this.identity = {
      id: file,
      name: path.basename(file),
      hypervisor: 'dump',
      connection: `dump:${file}${suffix}`,
    };
  }

  tick(): void {
    // Another look at a dump is the same look.
  }

  async state(): Promise<DomainState> {
    return 'image';
  }

  onEvent(): () => void {
    return () => undefined;
  }

  async close(): Promise<void> {
    this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

class DumpFrames implements FrameReader {
  readonly space: FrameReader['space'];
  readonly physicalBits = PHYSICAL_BITS;
  readonly #file: DumpFile;
  readonly #first: Float64Array;
  readonly #count: Float64Array;
  readonly #offset: Float64Array;

  constructor(file: DumpFile, { space, segments }: DumpContent) {
    const sorted = [...segments].sort((a, b) => a.first - b.first);
    this.space = space;
    this.#file = file;
    this.#first = Float64Array.from(sorted, ({ first }) => first);
    this.#count = Float64Array.from(sorted, ({ count }) => count);
    this.#offset = Float64Array.from(sorted, ({ offset }) => offset);
  }

  regions(): readonly FrameRegion[] {
    return Array.from(this.#first, (first, i) => ({ first: first as FrameNumber, count: this.#count[i]! }));
  }

  read(batch: FrameBatch): number {
    let failed = 0;
    for (let i = 0; i < batch.count; i++) {
      const length = batch.lengths[i]!;
      const position = batch.positions[i]!;
      const offset = this.#locate(batch.frames[i]!);
      const there =
        offset < 0 ? 0 : this.#file.read(batch.bytes, position, length, offset + batch.offsets[i]!);
      if (there === length) {
        batch.status[i] = FRAME_STATUS.ok;
        continue;
      }
      batch.bytes.fill(0, position, position + length);
      batch.status[i] = FRAME_STATUS.absent;
      failed += 1;
    }
    return failed;
  }

  /** Where a frame is in the file, or -1. */
  #locate(frame: number): number {
    let low = 0;
    let high = this.#first.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const inside = frame - this.#first[middle]!;
      if (inside < 0) high = middle - 1;
      else if (inside >= this.#count[middle]!) low = middle + 1;
      else return this.#offset[middle]! + inside * FRAME_SIZE;
    }
    return -1;
  }
}
