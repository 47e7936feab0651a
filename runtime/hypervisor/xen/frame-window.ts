import koffi from 'koffi';
import { DomschedError } from '../../error.ts';
import { FRAME_SIZE } from '../frame.ts';
import type { XenCalls } from './calls.ts';

const PROT_READ = 1;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
/** Since Linux 4.17: like MAP_FIXED, but fails if something is already mapped there. */
const MAP_FIXED_NOREPLACE = 0x10_0000;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const EMPTY = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
const WORD = 4;
/** Up to this many bytes a loop over words is faster than making a view for the copy. */
const FEW_BYTES = 96;

const libc = koffi.load('libc.so.6');
const mmap = libc.func(
  'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
);

/** A piece of our memory and the only view of it. */
interface WindowPlace {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
}

/** Places that no window uses any longer. They are never unmapped, see {@link FrameWindow}. */
const spare = new Map<number, WindowPlace[]>();

/**
 * A piece of our own address space into which foreign frames are mapped, slot by slot.
 *
 * It is reserved once and never given back; slots without a frame are empty memory that reads as zero. A frame is
 * mapped over that, and unmapped by mapping empty memory over it, each with a single system call that leaves no gap. So
 * our one view of the piece is valid as long as the program runs: no path, not even a wrong one, can touch a missing
 * page. The view never leaves this class.
 */
export class FrameWindow {
  readonly slots: number;
  readonly #place: WindowPlace;
  #closed = false;
  #gap = false;

  /** @throws DomschedError `host-unreachable` if there is not enough address space */
  constructor(slots: number) {
    this.slots = slots;
    this.#place = spare.get(slots)?.pop() ?? reserve(slots);
  }

  /**
   * Maps frames into `count` slots from `first` on, replacing anything there.
   * @param errors receives an errno for each; a slot with one must not be read before it is mapped again
   * @returns 0, or the errno when nothing was mapped and the slots are empty
   * @throws DomschedError `host-unreachable` when the window is lost
   */
  map(
    calls: XenCalls,
    domid: number,
    first: number,
    frames: BigUint64Array,
    errors: Int32Array,
    count: number,
    writable: boolean,
  ): number {
    this.#check(first, count);
    const address = this.#place.address + BigInt(first * FRAME_SIZE);
    const errno = calls.map(domid, address, writable, frames, errors, count);
    // The library has unmapped what it could not fill. If another thread has mapped something there since, we lose this
    // place but do not touch that thread's memory.
    if (errno !== 0 && !fill(address, count, MAP_FIXED_NOREPLACE)) this.#gap = true;
    if (this.#gap) throw lost();
    return errno;
  }

  /** Empties slots. Give back whole runs, as they were mapped. */
  unmap(first: number, count: number): void {
    this.#check(first, count);
    if (!fill(this.#place.address + BigInt(first * FRAME_SIZE), count, MAP_FIXED)) {
      this.#gap = true;
      throw lost();
    }
  }

  /** Copies bytes of a mapped slot. */
  copy(slot: number, offset: number, length: number, into: Uint8Array, position: number): void {
    this.#check(slot, 1);
    const from = slot * FRAME_SIZE + offset;
    if (length > FEW_BYTES || ((from | into.byteOffset | position | length) & (WORD - 1)) !== 0) {
      into.set(this.#place.bytes.subarray(from, from + length), position);
      return;
    }
    const { words } = this.#place;
    const target = wordsOf(into);
    const shift = into.byteOffset + position;
    for (let i = 0; i < length; i += WORD) target[(shift + i) >>> 2] = words[(from + i) >>> 2]!;
  }

  /** Stores bytes into a slot that is mapped for writing. */
  store(slot: number, offset: number, bytes: Uint8Array): void {
    this.#check(slot, 1);
    this.#place.bytes.set(bytes, slot * FRAME_SIZE + offset);
  }

  /** Unmaps everything. The next window of this size reuses the place. */
  close(): void {
    if (this.#closed) return;
    if (!this.#gap) this.unmap(0, this.slots);
    this.#closed = true;
    if (this.#gap) return;
    const places = spare.get(this.slots) ?? [];
    places.push(this.#place);
    spare.set(this.slots, places);
  }

  #check(first: number, count: number): void {
    if (this.#closed || this.#gap) throw lost();
    if (!(first >= 0 && count > 0 && first + count <= this.slots)) {
      throw new RangeError(`no slots ${first}+${count} in a window of ${this.slots}`);
    }
  }
}

/** The last buffer with its view; the buffers that we read into are few and live long. */
let lastBuffer: ArrayBufferLike | undefined;
let lastWords: Uint32Array<ArrayBufferLike> = new Uint32Array(0);

function wordsOf(bytes: Uint8Array): Uint32Array {
  if (bytes.buffer !== lastBuffer) {
    lastBuffer = bytes.buffer;
    lastWords = new Uint32Array(bytes.buffer, 0, bytes.buffer.byteLength >>> 2);
  }
  return lastWords;
}

function reserve(slots: number): WindowPlace {
  const length = slots * FRAME_SIZE;
  const address = asAddress(mmap(null, length, PROT_READ, EMPTY, -1, 0));
  if (address === MAP_FAILED) {
    throw new DomschedError('host-unreachable', `cannot reserve ${length} bytes of address space`, {
      errno: koffi.errno(),
    });
  }
  const buffer = koffi.view(address, length);
  return { address, bytes: new Uint8Array(buffer), words: new Uint32Array(buffer) };
}

function fill(address: bigint, slots: number, how: number): boolean {
  const flags = EMPTY | how;
  return asAddress(mmap(address, slots * FRAME_SIZE, PROT_READ, flags, -1, 0)) === address;
}

function asAddress(value: unknown): bigint {
  return BigInt.asUintN(64, BigInt((value as bigint | null) ?? MAP_FAILED));
}

function lost(): DomschedError {
  return new DomschedError('host-unreachable', 'the place where frames are mapped is closed or lost', {});
}
