import path from 'node:path';
import { FRAME_STATUS, type FrameBatch } from '../frame-batch.ts';
import type {
  DomainIdentity,
  DomainState,
  FrameReader,
  FrameRegion,
  ReadOnlyDomain,
  RegisterReader,
} from '../types.ts';
import type { DumpContent, DumpPages } from './content.ts';
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
      this.frames = new DumpFrames(content);
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
  readonly #pages: DumpPages;

  constructor({ space, pages }: DumpContent) {
    this.space = space;
    this.#pages = pages;
  }

  regions(): readonly FrameRegion[] {
    return this.#pages.regions();
  }

  read(batch: FrameBatch): number {
    let failed = 0;
    for (let i = 0; i < batch.count; i++) {
      const length = batch.lengths[i]!;
      const position = batch.positions[i]!;
      if (this.#pages.read(batch.frames[i]!, batch.offsets[i]!, length, batch.bytes, position)) {
        batch.status[i] = FRAME_STATUS.ok;
        continue;
      }
      batch.bytes.fill(0, position, position + length);
      batch.status[i] = FRAME_STATUS.absent;
      failed += 1;
    }
    return failed;
  }
}
