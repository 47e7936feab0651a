import path from 'node:path';
import { formatConnect } from '../connect-value.ts';
import { FRAME_SIZE } from '../frame.ts';
import { FRAME_STATUS, type FrameBatch } from '../frame-batch.ts';
import type {
  DomainIdentity,
  DomainState,
  FrameReader,
  FrameRegion,
  HostClock,
  ReadOnlyDomain,
  RegisterReader,
} from '../types.ts';
import type { DumpContent, DumpPages } from './content.ts';
import { DumpFile } from './file.ts';
import { readDump } from './open.ts';

/** No dump tells how many address bits its processor had, so assume the most. */
const PHYSICAL_BITS = 52;

/** A memory dump: a domain that can only be read. */
export class DumpDomain implements ReadOnlyDomain {
  readonly identity: DomainIdentity;
  readonly format: DumpContent['format'];
  readonly frames: FrameReader;
  readonly registers?: RegisterReader;
  /** Nothing runs in an image. */
  readonly hostClock: HostClock = { read: () => [], close: () => {} };
  /** Constant, because a dump does not change. */
  readonly generation = 0;
  /** Number of vCPUs with registers in the dump. */
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
    this.identity = {
      id: file,
      name: path.basename(file),
      hypervisor: 'dump',
      connection: dumpConnection(file, lowBytes),
      ...(this.format === 'raw' && { assumption: rawAssumption(this.#file.size, lowBytes) }),
    };
  }

  tick(): void {
    // A dump looks the same every time.
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

/** The `--connect` value of a dump. */
export function dumpConnection(file: string, lowBytes?: number): string {
  return formatConnect('dump', file, { low: lowBytes?.toString() });
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
    for (let i = 0; i < batch.count; ) {
      const end = this.#endOfRun(batch, i);
      const position = batch.positions[i]!;
      const length = batch.positions[end - 1]! + batch.lengths[end - 1]! - position;
      const isThere = this.#pages.read(batch.frames[i]!, batch.offsets[i]!, length, batch.bytes, position);
      batch.status.fill(isThere ? FRAME_STATUS.ok : FRAME_STATUS.absent, i, end);
      if (!isThere) {
        batch.bytes.fill(0, position, position + length);
        failed += end - i;
      }
      i = end;
    }
    return failed;
  }

  /**
   * Index behind the ranges from `start` on that one read of the file gets: long reads consist of whole frames that are
   * neighbours in memory, in the file and in the batch, and a system call for each would take most of their time.
   */
  #endOfRun({ count, frames, offsets, lengths, positions }: FrameBatch, start: number): number {
    const most = Math.min(count, start + (this.#pages.together?.(frames[start]!) ?? 1));
    let end = start + 1;
    for (; end < most; end++) {
      const isNext =
        frames[end] === frames[end - 1]! + 1 && positions[end] === positions[end - 1]! + lengths[end - 1]!;
      if (!isNext || offsets[end] !== 0 || offsets[end - 1]! + lengths[end - 1]! !== FRAME_SIZE) break;
    }
    return end;
  }
}

/** Usual places of the hole on machines with more memory than fits below it (QEMU hw/i386/pc_piix.c, pc_q35.c). */
const HOLES = [
  { low: '3G', bytes: 3 * 2 ** 30, machines: 'QEMU -machine pc, VMware' },
  { low: '2G', bytes: 2 * 2 ** 30, machines: 'QEMU -machine q35' },
];

function rawAssumption(size: number, lowBytes: number | undefined): string {
  const usual = HOLES.filter(({ bytes }) => size > bytes).map(
    ({ low, machines }) => `low=${low} (${machines})`,
  );
  const given = [...usual, 'low=BYTES, where info mtree -f of the monitor of QEMU ends RAM below 4 GiB'].join(
    ' or ',
  );
  const read =
    lowBytes === undefined
      ? 'from address 0 on without a hole'
      : `with ${lowBytes} bytes below the hole, the rest at 4 GiB`;
  return `it is a raw dump, read as memory ${read}: if the machine had RAM at 4 GiB, say where the hole begins, --connect dump:FILE,${given}`;
}
