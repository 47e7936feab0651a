import koffi from 'koffi';
import { DomschedError } from '../error.ts';
import { addressOf, type RangeCopier, RangeList } from '../hypervisor/process-memory.ts';

/** Linux UIO_MAXIOV is more; these are the pieces of one call. */
const MOST_PIECES = 1023;
const [EIO, EFAULT] = [5, 14];
const HIGH = 0x1_0000_0000;

const preadv = koffi
  .load('libc.so.6')
  .func('int64_t preadv(int fd, uintptr_t ranges, int count, int64_t offset)');

/**
 * Memory of a process by its `/proc/PID/mem`, opened for reading by somebody who may. What `process_vm_readv` copies in
 * one call takes one for each range that does not follow the one before.
 */
export class ReadMemory implements RangeCopier {
  readonly #fd: number;
  readonly #name: string;
  readonly #pieces = new RangeList();
  readonly #base = addressOf(new Uint8Array(this.#pieces.words.buffer));

  constructor(fd: number, name: string) {
    this.#fd = fd;
    this.#name = name;
  }

  read(local: RangeList, locals: number, remote: RangeList, remotes: number): number {
    const [into, from] = [local.words, remote.words];
    let copied = 0;
    let next = 0;
    let used = 0;
    for (let r = 0; r < remotes; ) {
      const start = from[4 * r]! + HIGH * from[4 * r + 1]!;
      let length = from[4 * r + 2]!;
      // What follows in the process is read with it.
      for (r += 1; r < remotes && from[4 * r]! + HIGH * from[4 * r + 1]! === start + length; r += 1) {
        length += from[4 * r + 2]!;
      }
      for (let done = 0; done < length; ) {
        const first = done;
        let pieces = 0;
        for (; done < length && next < locals && pieces < MOST_PIECES; pieces++) {
          const size = Math.min(into[4 * next + 2]! - used, length - done);
          this.#pieces.set(pieces, into[4 * next]! + HIGH * into[4 * next + 1]! + used, size);
          done += size;
          used += size;
          if (used < into[4 * next + 2]!) continue;
          next += 1;
          used = 0;
        }
        if (pieces === 0) return copied;
        const read = Number(preadv(this.#fd, this.#base, pieces, start + first));
        if (read > 0) copied += read;
        else if (read === 0) throw this.#gone();
        else if (koffi.errno() !== EIO && koffi.errno() !== EFAULT) throw this.#failed(koffi.errno());
        if (read !== done - first) return copied;
      }
    }
    return copied;
  }

  write(): never {
    throw new DomschedError('refused', `${this.#name}: its memory is open for reading only`, {});
  }

  /** The memory of a process that has ended is empty. */
  #gone(): DomschedError {
    return new DomschedError('domain-gone', `${this.#name} has ended`, { domain: this.#name });
  }

  #failed(errno: number): DomschedError {
    return new DomschedError('host-unreachable', `cannot read memory of ${this.#name}: error ${errno}`, {
      errno,
    });
  }
}
