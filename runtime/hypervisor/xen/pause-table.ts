import { readSync } from 'node:fs';
import koffi from 'koffi';
import { DomschedError } from '../../error.ts';

/** What happens to a pause when the program that made it dies. */
export type OnOurDeath = 'resume' | 'keep';

const SLOTS = 1024;
const WORD = 4;
/** A slot is one word: 0 if empty, otherwise the domain's id and the wish. */
const WISHES: Readonly<Record<OnOurDeath, number>> = { resume: 1, keep: 2 };
const WISH_BITS = 2;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MFD_CLOEXEC = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/**
 * The pauses of this program, in memory that another process can read after its death. Each is one word, so it is
 * either there or not, whenever the program dies. A word takes effect at once, without a system call or a queue.
 */
export class PauseTable {
  /** Descriptor for the process that will read it. */
  readonly descriptor: number;
  readonly #words: Uint32Array;
  readonly #close: (descriptor: number) => number;

  /** @throws DomschedError `host-unreachable` when the kernel has no memory for it */
  constructor() {
    const libc = koffi.load('libc.so.6');
    const create = libc.func('int memfd_create(const char *name, unsigned int flags)');
    const truncate = libc.func('int ftruncate(int fd, int64_t length)');
    const mmap = libc.func(
      'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
    );
    this.#close = libc.func('int close(int fd)') as (descriptor: number) => number;
    const length = SLOTS * WORD;
    this.descriptor = create('domsched-pauses', MFD_CLOEXEC) as number;
    const sized = this.descriptor >= 0 && truncate(this.descriptor, length) === 0;
    const address = sized ? mmap(null, length, PROT_READ_WRITE, MAP_SHARED, this.descriptor, 0) : MAP_FAILED;
    const place = BigInt.asUintN(64, BigInt(address as bigint));
    if (place === MAP_FAILED) {
      if (this.descriptor >= 0) this.close();
      throw new DomschedError('host-unreachable', 'no memory to note pauses in', { errno: koffi.errno() });
    }
    // It stays mapped as long as the program runs, because a view must never outlive its memory.
    this.#words = new Uint32Array(koffi.view(place, length));
  }

  /** @returns an unused slot @throws DomschedError `refused` when too many domains are paused */
  take(): number {
    const slot = this.#words.indexOf(0);
    if (slot >= 0) return slot;
    throw new DomschedError('refused', `${SLOTS} domains are paused; nothing more is`, { slots: SLOTS });
  }

  set(slot: number, domid: number, wish: OnOurDeath): void {
    Atomics.store(this.#words, slot, ((domid << WISH_BITS) | WISHES[wish]) >>> 0);
  }

  /** Closes our descriptor; a process that already has its own can still read the table. */
  close(): void {
    this.#close(this.descriptor);
  }

  clear(slot: number): void {
    Atomics.store(this.#words, slot, 0);
  }
}

/** Reads a table, in the process that was given its descriptor. */
export function readPauses(descriptor: number): { domid: number; wish: OnOurDeath }[] {
  const words = new Uint32Array(SLOTS);
  const bytes = new Uint8Array(words.buffer);
  for (let at = 0; at < bytes.length; ) {
    const count = readSync(descriptor, bytes, at, bytes.length - at, at);
    if (count === 0) break;
    at += count;
  }
  return [...words]
    .filter((word) => word !== 0)
    .map((word) => ({
      domid: word >>> WISH_BITS,
      wish: (word & WISHES.keep) === 0 ? ('resume' as const) : ('keep' as const),
    }));
}
