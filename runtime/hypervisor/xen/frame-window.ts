import koffi from 'koffi';
import { DomschedError } from '../../error.ts';
import { FRAME_SIZE } from '../frame.ts';
import type { XenCalls } from './calls.ts';

const PROT_READ = 1;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
/** Linux 4.17: as MAP_FIXED, but fails where something is mapped already. */
const MAP_FIXED_NOREPLACE = 0x10_0000;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const EMPTY = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
const WORD = 4;
/** Up to so many bytes a loop over words is quicker than a view made for the copy. */
const FEW_BYTES = 96;

const libc = koffi.load('libc.so.6');
const mmap = libc.func(
  'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
);

/** A place in our memory, with the one view of it. */
interface WindowPlace {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
}

/** Places that no window uses any longer. They are never given back: see {@link FrameWindow}. */
const spare = new Map<number, WindowPlace[]>();

/**
 * A piece of our own address space that foreign frames are mapped into and out of, slot by slot.
 *
 * The piece is reserved once and never given back, and what is not mapped in it is empty memory that reads as zero. A
 * frame is mapped over that, and unmapped by mapping empty memory over the frame, each a single system call that
 * leaves no gap. So the one view that we have of the piece is good for as long as the program runs: no path, not even
 * a wrong one, can touch a page that is not there. The view itself never leaves this class.
 */
export class FrameWindow {
  readonly slots: number;
  readonly #place: WindowPlace;
  #closed = false;
  #gap = false;

  /** @throws DomschedError `host-unreachable` without that much address space */
  constructor(slots: number) {
    this.slots = slots;
    this.#place = spare.get(slots)?.pop() ?? reserve(slots);
  }

  /**
   * Maps frames into `count` slots from `first` on, over whatever is there.
   * @param errors receives an errno for each; a slot with one must not be read before it is mapped anew
   * @returns 0, or the errno when nothing was mapped: the slots are empty then
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
    // The library has unmapped what it could not fill. Another thread may have put something there since: then this
    // place is lost to us, but not that thread's memory.
    if (errno !== 0 && !fill(address, count, MAP_FIXED_NOREPLACE)) this.#gap = true;
    if (this.#gap) throw lost();
    return errno;
  }

  /** Makes slots empty. Give whole runs back, as they were mapped. */
  unmap(first: number, count: number): void {
    this.#check(first, count);
    if (!fill(this.#place.address + BigInt(first * FRAME_SIZE), count, MAP_FIXED)) {
      this.#gap = true;
      throw lost();
    }
  }

  /** Copies bytes of a slot that is mapped. */
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

  /** Stores bytes into a slot that is mapped to be written. */
  store(slot: number, offset: number, bytes: Uint8Array): void {
    this.#check(slot, 1);
    this.#place.bytes.set(bytes, slot * FRAME_SIZE + offset);
  }

  /** Unmaps everything; the place is used again by the next window of this size. */
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

/** Views by buffer: those that are read into are few and live long. */
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
