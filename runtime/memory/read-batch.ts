import { FrameBatch } from '../hypervisor/frame-batch.ts';
import type { GuestVirtual } from './address.ts';
import type { FaultFacts } from './fault.ts';

const INITIAL_READS = 64;

/**
 * Virtual ranges to read and the buffer that receives them. Reused over and over: filling and reading a warm
 * batch allocates nothing.
 *
 * ```ts
 * batch.clear();
 * const index = batch.add(address, size);
 * space.read(batch);
 * batch.view.getUint32(batch.positions[index]! + offset, true);
 * ```
 */
export class ReadBatch {
  /** Number of reads in the batch; the arrays are valid below it. */
  count = 0;
  /** Addresses as 64-bit words; {@link halves} views the same memory as low and high halves. */
  addresses = new BigUint64Array(INITIAL_READS);
  halves = new Uint32Array(this.addresses.buffer);
  /** In bytes. */
  lengths = new Uint32Array(INITIAL_READS);
  /** Position in {@link bytes} of each read's content. */
  positions = new Uint32Array(INITIAL_READS);
  /** Mapped bytes from the start of the read; the rest is zero. Set by `AddressSpace.read`. */
  mappedLengths = new Uint32Array(INITIAL_READS);
  /** The frame ranges of the reads; owns the buffer. Filled by `AddressSpace.read`. */
  readonly ranges: FrameBatch;
  /** The translations that {@link ranges} were made from, if all reads were complete. Set by `AddressSpace.read`. */
  translations: object | undefined;
  /** Facts of incomplete reads by index. Filled by `AddressSpace.read`. */
  readonly faults = new Map<number, FaultFacts>();

  /** @param maxBytes refuse to grow beyond this, so that a lying guest cannot exhaust our memory */
  constructor(maxBytes?: number) {
    this.ranges = new FrameBatch(maxBytes);
  }

  /** Content of all reads. A growing batch replaces it, so take it after the last `add`. */
  get bytes(): Uint8Array {
    return this.ranges.bytes;
  }

  /** {@link bytes} as words. */
  get view(): DataView {
    return this.ranges.view;
  }

  clear(): void {
    this.next();
    this.ranges.clear();
  }

  /** Begins other reads and keeps the bytes of those before: new content goes behind them. */
  next(): void {
    this.count = 0;
    this.translations = undefined;
    this.ranges.count = 0;
    if (this.faults.size > 0) this.faults.clear();
  }

  /**
   * Adds a read of `length` bytes, which may cross pages.
   * @returns its index
   * @throws RangeError if the batch would exceed its limit
   */
  add(address: GuestVirtual, length: number): number {
    const index = this.#place(length);
    this.addresses[index] = address;
    return index;
  }

  /**
   * Adds a read at the pointer stored at `position` of {@link bytes}, plus `offset` bytes: follows a pointer that was
   * just read without making a bigint.
   */
  addPointer(position: number, offset: number, length: number): number {
    const low = this.view.getUint32(position, true);
    const high = this.view.getUint32(position + 4, true);
    return this.addHalves(low, high, offset, length);
  }

  /** Adds a read at `high:low + offset`. */
  addHalves(low: number, high: number, offset: number, length: number): number {
    const index = this.#place(length);
    const sum = low + offset;
    this.halves[2 * index] = sum >>> 0;
    // Floor division carries into the high half, or borrows from it for a negative offset.
    this.halves[2 * index + 1] = (high + Math.floor(sum / 0x1_0000_0000)) >>> 0;
    return index;
  }

  /** Mapped bytes from the start of the read; its length if it is complete. */
  mapped(index: number): number {
    return this.mappedLengths[index]!;
  }

  complete(index: number): boolean {
    return this.mappedLengths[index] === this.lengths[index];
  }

  /** Why a read is incomplete. */
  fault(index: number): FaultFacts | undefined {
    return this.faults.get(index);
  }

  /** The content of a read, not copied; valid until the batch grows or is cleared. */
  content(index: number): Uint8Array {
    const position = this.positions[index]!;
    return this.bytes.subarray(position, position + this.lengths[index]!);
  }

  #place(length: number): number {
    if (!(Number.isInteger(length) && length > 0)) throw new RangeError(`cannot read ${length} bytes`);
    const position = this.ranges.reserve(length);
    const index = this.count;
    if (index === this.lengths.length) this.#growReads();
    this.lengths[index] = length;
    this.positions[index] = position;
    this.mappedLengths[index] = 0;
    this.translations = undefined;
    this.count = index + 1;
    return index;
  }

  #growReads(): void {
    const size = this.lengths.length * 2;
    const addresses = new BigUint64Array(size);
    addresses.set(this.addresses);
    this.addresses = addresses;
    this.halves = new Uint32Array(addresses.buffer);
    for (const name of ['lengths', 'positions', 'mappedLengths'] as const) {
      const grown = new Uint32Array(size);
      grown.set(this[name]);
      this[name] = grown;
    }
  }
}
