import { readSync, writeSync } from 'node:fs';
import koffi from 'koffi';
import { DomschedError } from '../error.ts';

/**
 * What becomes of a pause without the program that made it.
 *
 * | wish | if the program dies | if it is stopped (SIGSTOP) for long |
 * |---|---|---|
 * | `resume` | ended | `claimed` by the watchdog, then ended |
 * | `keep` | stays, for an edit is being written | stays |
 * | `return` | given back, and the domain stays paused, as it was found | stays |
 * | `claimed` | ended | the watchdog is about to end it |
 * | `resumed` | nothing | the watchdog has ended it |
 *
 * If the watchdog dies with the program, a table that is a file (`pause-files.ts`) tells the next of us.
 */
export type PauseWish = 'resume' | 'keep' | 'return' | 'claimed' | 'resumed';

/** A pause in the table; the key is the domain's id, or its process's. */
export interface NotedPause {
  readonly slot: number;
  readonly key: number;
  readonly wish: PauseWish;
  /** CPU time of the domain since it stands, ns, where it was noted: if it has more now, it has run. */
  readonly stoodAt: bigint;
}

const SLOTS = 1024;
const WORD = 4;
/** A slot is one word: 0 if empty, otherwise the key and the wish. */
const WISH_NUMBERS: Readonly<Record<PauseWish, number>> = {
  resume: 1,
  keep: 2,
  return: 3,
  claimed: 4,
  resumed: 5,
};
const WISHES: readonly (PauseWish | undefined)[] = [undefined, ...(Object.keys(WISH_NUMBERS) as PauseWish[])];
const WISH_BITS = 3;
/** Words first, then a time for each. */
export const TABLE_BYTES = SLOTS * (WORD + BigUint64Array.BYTES_PER_ELEMENT);
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MFD_CLOEXEC = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/**
 * The pauses of a program, in memory that its watchdog shares. Each is one word, so it is either there or not, whenever
 * the program dies, and a change that depends on what it was either happens as a whole or not. It takes effect at once,
 * without a system call or a queue.
 */
export class PauseTable {
  /** Descriptor for the other process. */
  readonly descriptor: number;
  readonly #words: Uint32Array;
  readonly #times: BigUint64Array;
  readonly #close: (descriptor: number) => number;

  /**
   * @param descriptor of a file that is a table already; without, one that ends with us and the process beside us
   * @throws DomschedError `host-unreachable` when the kernel has no memory for it
   */
  constructor(descriptor?: number) {
    const libc = koffi.load('libc.so.6');
    const create = libc.func('int memfd_create(const char *name, unsigned int flags)');
    const truncate = libc.func('int ftruncate(int fd, int64_t length)');
    const mmap = libc.func(
      'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
    );
    this.#close = libc.func('int close(int fd)') as (descriptor: number) => number;
    this.descriptor = descriptor ?? (create('domsched-pauses', MFD_CLOEXEC) as number);
    const sized =
      this.descriptor >= 0 && (descriptor !== undefined || truncate(this.descriptor, TABLE_BYTES) === 0);
    const address = sized
      ? mmap(null, TABLE_BYTES, PROT_READ_WRITE, MAP_SHARED, this.descriptor, 0)
      : MAP_FAILED;
    const place = BigInt.asUintN(64, BigInt(address as bigint));
    if (place === MAP_FAILED) {
      if (this.descriptor >= 0) this.close();
      throw new DomschedError('host-unreachable', 'no memory to note pauses in', { errno: koffi.errno() });
    }
    // It stays mapped as long as the program runs, because a view must never outlive its memory.
    const memory = koffi.view(place, TABLE_BYTES);
    this.#words = new Uint32Array(memory, 0, SLOTS);
    this.#times = new BigUint64Array(memory, SLOTS * WORD);
  }

  /**
   * @param last slot that was used last, which mostly is free
   * @returns an unused slot
   * @throws DomschedError `refused` when too many domains are paused
   */
  take(last = 0): number {
    if (this.#words[last] === 0) return last;
    const slot = this.#words.indexOf(0);
    if (slot >= 0) return slot;
    throw new DomschedError('refused', `${SLOTS} domains are paused; nothing more is`, { slots: SLOTS });
  }

  set(slot: number, key: number, wish: PauseWish): void {
    Atomics.store(this.#words, slot, wordOf(key, wish));
  }

  /** Notes the CPU time of a domain that stands, or is about to, ns. */
  stands(slot: number, cpuTimeNs: bigint): void {
    Atomics.store(this.#times, slot, cpuTimeNs);
  }

  /** Changes the wish of a pause that still has the wish `from`. @returns whether it had */
  change(slot: number, key: number, from: PauseWish, to: PauseWish): boolean {
    const before = wordOf(key, from);
    return Atomics.compareExchange(this.#words, slot, before, wordOf(key, to)) === before;
  }

  /**
   * Says whether an edit is being written under a pause whose wish is `otherwise` without one.
   * @throws DomschedError `edit-conflict` when we stood still for so long that the watchdog has claimed the pause
   */
  keep(slot: number, key: number, otherwise: PauseWish, keep: boolean): void {
    if (!keep) this.set(slot, key, otherwise);
    else if (this.wishAt(slot) !== 'keep' && !this.change(slot, key, otherwise, 'keep')) {
      throw new DomschedError(
        'edit-conflict',
        'domsched was stopped (SIGSTOP) during its pause, so the process beside it let the domain go on',
      );
    }
  }

  wishAt(slot: number): PauseWish | undefined {
    return wishOf(Atomics.load(this.#words, slot));
  }

  /** Closes our descriptor; a process that already has its own can still read the table. */
  close(): void {
    this.#close(this.descriptor);
  }

  clear(slot: number): void {
    Atomics.store(this.#words, slot, 0);
  }
}

/** Reads a table, in another process. */
export function readPauses(descriptor: number): NotedPause[] {
  const memory = new ArrayBuffer(TABLE_BYTES);
  const bytes = new Uint8Array(memory);
  for (let at = 0; at < bytes.length; ) {
    const count = readSync(descriptor, bytes, at, bytes.length - at, at);
    if (count === 0) break;
    at += count;
  }
  const times = new BigUint64Array(memory, SLOTS * WORD);
  return Array.from(new Uint32Array(memory, 0, SLOTS), (word, slot) => ({
    slot,
    key: word >>> WISH_BITS,
    wish: wishOf(word),
    stoodAt: times[slot]!,
  })).filter((pause): pause is NotedPause => pause.wish !== undefined);
}

/** Empties a slot of a table of dead processes. */
export function forgetPause(descriptor: number, slot: number): void {
  writeSync(descriptor, new Uint8Array(WORD), 0, WORD, slot * WORD);
}

function wordOf(key: number, wish: PauseWish): number {
  return ((key << WISH_BITS) | WISH_NUMBERS[wish]) >>> 0;
}

function wishOf(word: number): PauseWish | undefined {
  return WISHES[word & ((1 << WISH_BITS) - 1)];
}
