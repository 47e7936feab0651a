import { DomschedError } from '../../error.ts';
import { FRAME_SIZE, type GuestFrame } from '../frame.ts';
import { FRAME_STATUS, type FrameBatch } from '../frame-batch.ts';
import {
  addressOf,
  type FileMapping,
  MAX_RANGES_PER_CALL,
  type RangeCopier,
  RangeList,
} from '../process-memory.ts';
import type { FrameReader, FrameRegion, FrameWrite, FrameWriter } from '../types.ts';

/** Most bytes between two ranges of a frame that are copied along instead of starting another range. */
const MAX_GAP = 2048;

/** RAM that is contiguous in the guest and in the process that we copy from. */
export interface RamSegment {
  readonly first: number;
  readonly count: number;
  /** Address of the first frame in the process. */
  readonly address: number;
}

/** Segments and the memory they are in: QEMU's process, or our own mapping of its memory file. */
export interface RamSource {
  readonly memory: RangeCopier;
  readonly segments: readonly RamSegment[];
  /** Set if memory is our mapping. */
  readonly mapping: FileMapping | undefined;
  /** The same segments by addresses in QEMU's process, if QEMU was asked. */
  readonly inProcess?: readonly RamSegment[];
}

/** Frames of a QEMU guest, copied by system call. */
export class QemuRam implements FrameReader<GuestFrame>, FrameWriter<GuestFrame> {
  readonly space = 'guest';
  readonly physicalBits: number;
  readonly #name: string;
  #sources: readonly RamSource[] = [];
  /** Columns of the segments of all sources, ascending: first frame, end frame, address of frame 0, source. */
  #first = new Float64Array(0);
  #end = new Float64Array(0);
  #address = new Float64Array(0);
  #source = new Uint8Array(0);
  #recent = 0;
  #failure: DomschedError | undefined;
  readonly #local = new RangeList();
  readonly #remote = new RangeList();
  /** Batch index of each range in the lists. */
  readonly #owner = new Uint32Array(MAX_RANGES_PER_CALL);
  /** Receives the bytes between two ranges of a frame. */
  readonly #waste = new Uint8Array(new ArrayBuffer(FRAME_SIZE));
  readonly #between = addressOf(this.#waste);
  readonly #staging = new Uint8Array(new ArrayBuffer(FRAME_SIZE));

  constructor(name: string, physicalBits: number, sources: readonly RamSource[]) {
    this.#name = name;
    this.physicalBits = physicalBits;
    this.replace(sources);
  }

  /** Takes a new memory map after a reset or hot-plug. Mappings that are no longer used are closed. */
  replace(sources: readonly RamSource[]): void {
    for (const { mapping } of this.#sources) {
      if (mapping !== undefined && !sources.some((source) => source.mapping === mapping)) mapping.close();
    }
    this.#sources = sources;
    const segments = sources
      .flatMap((source, index) => source.segments.map((segment) => ({ ...segment, index })))
      .sort((a, b) => a.first - b.first);
    this.#first = Float64Array.from(segments, (segment) => segment.first);
    this.#end = Float64Array.from(segments, (segment) => segment.first + segment.count);
    this.#address = Float64Array.from(segments, (segment) => segment.address);
    this.#source = Uint8Array.from(segments, (segment) => segment.index);
    this.#recent = 0;
  }

  /** Makes every later access throw this. */
  fail(error: DomschedError): void {
    this.#failure ??= error;
  }

  close(): void {
    this.fail(new DomschedError('domain-gone', `${this.#name} was closed`, { domain: this.#name }));
    this.replace([]);
  }

  regions(): readonly FrameRegion<GuestFrame>[] {
    return Array.from(this.#first, (first, i) => ({
      first: first as GuestFrame,
      count: this.#end[i]! - first,
    }));
  }

  read(batch: FrameBatch<GuestFrame>): number {
    if (this.#failure !== undefined) throw this.#failure;
    let failed = 0;
    for (let s = 0; s < this.#sources.length; s++) failed += this.#readFrom(batch, s);
    return failed;
  }

  write(writes: readonly FrameWrite<GuestFrame>[]): void {
    if (this.#failure !== undefined) throw this.#failure;
    const segments = writes.map(({ frame, offset, bytes }, index) => {
      const segment = this.#segmentOf(frame);
      if (segment >= 0 && offset >= 0 && offset + bytes.length <= FRAME_SIZE) return segment;
      throw new DomschedError(
        'frame-unmapped',
        `${this.#name}: ${bytes.length} bytes at ${offset} of frame ${frame} are not RAM; nothing was written`,
        { domain: this.#name, frame, index },
      );
    });
    for (const [index, { frame, offset, bytes }] of writes.entries()) {
      const segment = segments[index]!;
      const source = this.#sources[this.#source[segment]!]!;
      // The collector may move small arrays.
      this.#staging.set(bytes);
      this.#local.set(0, addressOf(this.#staging), bytes.length);
      this.#remote.set(0, this.#addressOf(segment, frame, offset), bytes.length);
      const copied = source.memory.write(this.#local, 1, this.#remote, 1);
      if (copied === bytes.length) continue;
      throw new DomschedError(
        'memory-fault',
        `${this.#name}: write ${index + 1} of ${writes.length} failed at frame ${frame}`,
        { domain: this.#name, frame, index },
      );
    }
  }

  /**
   * Reads the ranges of source `s`; with the first source it also settles those that no source has. Finding a page is
   * slow and copying from it is not, so successive ranges of one frame are merged, and the bytes between go to a buffer
   * that nobody reads.
   */
  #readFrom(batch: FrameBatch<GuestFrame>, s: number): number {
    const buffer = addressOf(batch.bytes);
    let failed = 0;
    let owned = 0;
    let locals = 0;
    let remotes = 0;
    let frameBefore = -1;
    let endBefore = 0;
    let bytes = 0;
    for (let i = 0; i < batch.count; i++) {
      const frame = batch.frames[i]!;
      const segment = this.#segmentOf(frame);
      if (segment < 0) {
        if (s === 0) failed += this.#absent(batch, i);
        continue;
      }
      if (this.#source[segment] !== s) continue;
      const offset = batch.offsets[i]!;
      const length = batch.lengths[i]!;
      const gap = offset - endBefore;
      if (frame === frameBefore && gap >= 0 && gap <= MAX_GAP) {
        if (gap > 0) this.#local.set(locals++, this.#between, gap);
        this.#remote.extend(remotes - 1, gap + length);
        bytes += gap;
      } else {
        this.#remote.set(remotes++, this.#addressOf(segment, frame, offset), length);
      }
      this.#local.set(locals++, buffer + batch.positions[i]!, length);
      this.#owner[owned++] = i;
      bytes += length;
      frameBefore = frame;
      endBefore = offset + length;
      if (locals < MAX_RANGES_PER_CALL - 1) continue;
      failed += this.#copy(batch, s, owned, locals, remotes, bytes);
      owned = locals = remotes = bytes = 0;
      frameBefore = -1;
    }
    return failed + (owned > 0 ? this.#copy(batch, s, owned, locals, remotes, bytes) : 0);
  }

  #copy(
    batch: FrameBatch<GuestFrame>,
    s: number,
    owned: number,
    locals: number,
    remotes: number,
    bytes: number,
  ): number {
    const copied = this.#sources[s]!.memory.read(this.#local, locals, this.#remote, remotes, batch.bytes);
    if (copied < bytes) return this.#copySingly(batch, s, owned);
    for (let k = 0; k < owned; k++) batch.status[this.#owner[k]!] = FRAME_STATUS.ok;
    return 0;
  }

  /** Reads each range by itself to find which one is missing. */
  #copySingly(batch: FrameBatch<GuestFrame>, s: number, owned: number): number {
    const { memory, mapping } = this.#sources[s]!;
    if (mapping?.truncated) {
      throw new DomschedError(
        'host-unreachable',
        `${this.#name}: its memory file ${mapping.path} has been truncated`,
        { domain: this.#name, path: mapping.path },
      );
    }
    const buffer = addressOf(batch.bytes);
    let failed = 0;
    for (let k = 0; k < owned; k++) {
      const i = this.#owner[k]!;
      const frame = batch.frames[i]!;
      const length = batch.lengths[i]!;
      this.#local.set(0, buffer + batch.positions[i]!, length);
      this.#remote.set(0, this.#addressOf(this.#segmentOf(frame), frame, batch.offsets[i]!), length);
      if (memory.read(this.#local, 1, this.#remote, 1, batch.bytes) === length)
        batch.status[i] = FRAME_STATUS.ok;
      else failed += this.#absent(batch, i);
    }
    return failed;
  }

  #absent(batch: FrameBatch<GuestFrame>, i: number): 1 {
    batch.status[i] = FRAME_STATUS.absent;
    batch.bytes.fill(0, batch.positions[i]!, batch.positions[i]! + batch.lengths[i]!);
    return 1;
  }

  #segmentOf(frame: number): number {
    const recent = this.#recent;
    if (frame >= this.#first[recent]! && frame < this.#end[recent]!) return recent;
    for (let i = 0; i < this.#first.length; i++) {
      if (frame >= this.#first[i]! && frame < this.#end[i]!) {
        this.#recent = i;
        return i;
      }
    }
    return -1;
  }

  #addressOf(segment: number, frame: number, offset: number): number {
    return this.#address[segment]! + (frame - this.#first[segment]!) * FRAME_SIZE + offset;
  }
}
