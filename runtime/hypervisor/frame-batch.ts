import { FRAME_LIMIT, FRAME_SIZE, type FrameNumber } from './frame.ts';

/** Result for one range of a batch. */
export const FRAME_STATUS = {
  /** Not read yet. */
  pending: 0,
  ok: 1,
  /** The guest has no memory there, or the file ends before it. */
  absent: 2,
  /** It is ROM, a device or a hole, which must not be read as RAM. */
  device: 3,
  /** The hypervisor refused this frame. */
  denied: 4,
} as const;

export type FrameStatus = (typeof FRAME_STATUS)[keyof typeof FRAME_STATUS];

const INITIAL_RANGES = 64;
const INITIAL_BYTES = 16 * 1024;

/**
 * Byte ranges to read, each within one frame, and the buffer that receives them. It can be filled, read and cleared
 * again without allocating, because it has parallel arrays instead of an object per range.
 */
export class FrameBatch<F extends FrameNumber = FrameNumber> {
  /** Number of ranges; the arrays are valid below it. */
  count = 0;
  /** Bytes of {@link bytes} in use. */
  used = 0;
  frames = new Float64Array(INITIAL_RANGES);
  /** Offset of each range in its frame. */
  offsets = new Uint32Array(INITIAL_RANGES);
  /** Length of each range in bytes. */
  lengths = new Uint32Array(INITIAL_RANGES);
  /** Position of each range's content in {@link bytes}. */
  positions = new Uint32Array(INITIAL_RANGES);
  /** {@link FRAME_STATUS} of each range. */
  status = new Uint8Array(INITIAL_RANGES);
  /** Content of all ranges. A growing batch replaces it by a bigger one, so take views after the last `add`. */
  bytes = new Uint8Array(new ArrayBuffer(INITIAL_BYTES));
  view = new DataView(this.bytes.buffer);
  #maxBytes: number;

  /** @param maxBytes limit for growing, so that a lying guest cannot exhaust our memory */
  constructor(maxBytes = 64 * 1024 * 1024) {
    this.#maxBytes = maxBytes;
  }

  clear(): void {
    this.count = 0;
    this.used = 0;
  }

  /**
   * Adds `length` bytes at `offset` of `frame`.
   * @returns the index of the range
   * @throws RangeError if the range is not within one frame or the batch would exceed its limit
   */
  add(frame: F, offset: number, length: number): number {
    if (!(frame >= 0 && frame < FRAME_LIMIT)) throw new RangeError(`no frame number: ${frame}`);
    if (!(offset >= 0 && length > 0 && offset + length <= FRAME_SIZE)) {
      throw new RangeError(`range ${offset}+${length} is not within one frame`);
    }
    const position = this.reserve(length);
    return this.place(frame, offset, length, position);
  }

  /** Adds a range whose bytes go to a `position` from {@link reserve}. */
  place(frame: F, offset: number, length: number, position: number): number {
    const index = this.count;
    if (index === this.status.length) this.#growRanges();
    this.frames[index] = frame;
    this.offsets[index] = offset;
    this.lengths[index] = length;
    this.positions[index] = position;
    this.status[index] = FRAME_STATUS.pending;
    this.count = index + 1;
    return index;
  }

  /** Reserves `length` bytes of {@link bytes}, 8-byte aligned, and returns their position. */
  reserve(length: number): number {
    const position = (this.used + 7) & ~7;
    const end = position + length;
    if (end > this.bytes.length) this.#growBytes(end);
    this.used = end;
    return position;
  }

  #growRanges(): void {
    const size = this.status.length * 2;
    const frames = new Float64Array(size);
    frames.set(this.frames);
    this.frames = frames;
    for (const name of ['offsets', 'lengths', 'positions'] as const) {
      const grown = new Uint32Array(size);
      grown.set(this[name]);
      this[name] = grown;
    }
    const status = new Uint8Array(size);
    status.set(this.status);
    this.status = status;
  }

  #growBytes(needed: number): void {
    if (needed > this.#maxBytes) {
      throw new RangeError(`a batch of ${needed} bytes exceeds the limit of ${this.#maxBytes}`);
    }
    let size = this.bytes.length;
    while (size < needed) size *= 2;
    const bytes = new Uint8Array(new ArrayBuffer(size));
    bytes.set(this.bytes);
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer);
  }
}
