import koffi from 'koffi';
import { DomschedError } from '../error.ts';
import { addressOf, type RangeCopier, type RangeList } from '../hypervisor/process-memory.ts';

/** Most bytes of one call that go to several places. */
const CHUNK_BYTES = 64 * 1024;
const [EIO, EFAULT] = [5, 14];
const HIGH = 0x1_0000_0000;

const pread = koffi
  .load('libc.so.6')
  .func('int64_t pread(int fd, uintptr_t to, size_t length, int64_t offset)');

/**
 * Memory of a process by its `/proc/PID/mem`, opened for reading by somebody who may. What `process_vm_readv` copies in
 * one call takes one for each range that does not follow the one before. Where the bytes of a range go to several places we
 * distribute them ourselves, because `preadv` costs the kernel as much for each place as for a call.
 */
export class ReadMemory implements RangeCopier {
  readonly #fd: number;
  readonly #name: string;
  readonly #chunk = new Uint8Array(new ArrayBuffer(CHUNK_BYTES));
  readonly #chunkAddress = addressOf(this.#chunk);

  constructor(fd: number, name: string) {
    this.#fd = fd;
    this.#name = name;
  }

  read(
    local: RangeList,
    locals: number,
    remote: RangeList,
    remotes: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): number {
    const from = remote.words;
    const to = new ReadTargets(local, locals, bytes);
    for (let r = 0; r < remotes; ) {
      const start = from[4 * r]! + HIGH * from[4 * r + 1]!;
      let length = from[4 * r + 2]!;
      // What follows in the process is read with it.
      for (r += 1; r < remotes && from[4 * r]! + HIGH * from[4 * r + 1]! === start + length; r += 1) {
        length += from[4 * r + 2]!;
      }
      for (let done = 0; done < length; ) {
        const wanted = Math.min(length - done, Math.max(to.room, CHUNK_BYTES));
        const isWhole = to.room >= wanted;
        const read = this.#read(isWhole ? to.address : this.#chunkAddress, wanted, start + done);
        to.take(read, isWhole ? undefined : this.#chunk);
        if (read < wanted) return to.taken;
        done += wanted;
      }
    }
    return to.taken;
  }

  write(): never {
    throw new DomschedError('refused', `${this.#name}: its memory is open for reading only`, {});
  }

  /** @returns number of bytes up to what is missing */
  #read(to: number, size: number, address: number): number {
    const read = Number(pread(this.#fd, to, size, address));
    if (read > 0) return read;
    // The memory of a process that has ended is empty.
    if (read === 0) {
      throw new DomschedError('domain-gone', `${this.#name} has ended`, { domain: this.#name });
    }
    const errno = koffi.errno();
    if (errno === EIO || errno === EFAULT) return 0;
    throw new DomschedError('host-unreachable', `cannot read memory of ${this.#name}: error ${errno}`, {
      errno,
    });
  }
}

/** Where what is read goes, one place after the other. */
class ReadTargets {
  taken = 0;
  readonly #words: Uint32Array;
  readonly #count: number;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #base: number;
  #next = 0;
  /** Bytes of that place that are taken. */
  #used = 0;

  constructor({ words }: RangeList, count: number, bytes: Uint8Array<ArrayBuffer>) {
    this.#words = words;
    this.#count = count;
    this.#bytes = bytes;
    this.#base = addressOf(bytes);
  }

  /** Address of the next byte. */
  get address(): number {
    return this.#words[4 * this.#next]! + HIGH * this.#words[4 * this.#next + 1]! + this.#used;
  }

  /** Bytes that go to the same place. */
  get room(): number {
    return this.#next < this.#count ? this.#words[4 * this.#next + 2]! - this.#used : 0;
  }

  /** @param from the first `length` bytes of which are copied, where somebody reads them; absent if they are there already */
  take(length: number, from: Uint8Array | undefined): void {
    this.taken += length;
    for (let at = 0; at < length; ) {
      const piece = Math.min(this.room, length - at);
      if (piece === 0) throw new RangeError('there are fewer places than bytes');
      const position = this.address - this.#base;
      if (from !== undefined && position >= 0 && position < this.#bytes.length) {
        this.#bytes.set(from.subarray(at, at + piece), position);
      }
      at += piece;
      this.#used += piece;
      if (this.room > 0) continue;
      this.#next += 1;
      this.#used = 0;
    }
  }
}
