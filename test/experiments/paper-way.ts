/**
 * How the paper's prototype read a guest, for comparison: every address is translated anew through the guest's page
 * tables, each table and each page is mapped for that one word and unmapped again. Nothing is kept from one word to the
 * next. The guest's memory is a file here, so that mapping is `mmap`.
 */
import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import type { AddressSpace } from '../../runtime/memory/types.ts';

const PAGE = 4096n;
const PROT_READ = 1;
const MAP_SHARED = 1;
/** Entry of a page table (Intel SDM vol. 3A, 4.5): present, large page, and where it leads. */
const [PRESENT, LARGE, TARGET] = [1n, 1n << 7n, 0x000f_ffff_ffff_f000n];

const libc = koffi.load('libc.so.6');
const mmap = libc.func(
  'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const munmap = libc.func('int munmap(void *address, size_t length)');

export class PaperWay implements Disposable {
  readonly #file: number;
  readonly #root: bigint;
  /** Bits below the index of each level. */
  readonly #shifts: readonly bigint[];

  /**
   * @param file the guest's memory, below 4 GiB: physical address n is byte n of it
   * @param space where its topmost table is and how many levels there are; the paper's prototype knew that too
   */
  constructor(file: string, { root, mode }: Pick<AddressSpace, 'root' | 'mode'>) {
    this.#file = openSync(file, 'r');
    this.#root = BigInt(root);
    this.#shifts = mode.split.slice(1).map((_, i) => BigInt(sum(mode.split.slice(i + 1))));
  }

  /** Physical address of a virtual one. @throws RangeError where nothing is mapped */
  translate(address: bigint): bigint {
    let table = this.#root;
    for (const shift of this.#shifts) {
      const entry = this.#mapped(table + 8n * ((address >> shift) & 0x1ffn));
      if (!(entry & PRESENT)) break;
      const inside = (1n << shift) - 1n;
      if (shift === 12n || (shift < 39n && entry & LARGE))
        return (entry & TARGET & ~inside) | (address & inside);
      table = entry & TARGET;
    }
    throw new RangeError(`0x${address.toString(16)} is not mapped`);
  }

  /** Maps the page of a physical address. */
  map(physical: bigint): MappedPage {
    const page = physical - (physical % PAGE);
    const address = mmap(null, Number(PAGE), PROT_READ, MAP_SHARED, this.#file, page) as bigint;
    return { address, offset: Number(physical % PAGE) };
  }

  unmap({ address }: MappedPage): void {
    munmap(address, Number(PAGE));
  }

  read({ address, offset }: MappedPage): bigint {
    return BigInt(koffi.decode(address, offset, 'uint64_t') as number | bigint);
  }

  /** All of it for one word. */
  word(address: bigint): bigint {
    return this.#mapped(this.translate(address));
  }

  #mapped(physical: bigint): bigint {
    const page = this.map(physical);
    const word = this.read(page);
    this.unmap(page);
    return word;
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

export interface MappedPage {
  readonly address: bigint;
  readonly offset: number;
}
