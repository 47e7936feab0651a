import type { Word } from '../../../runtime/edit/member.ts';
import { FakeDomain, type FakeDomainOptions } from '../../../runtime/hypervisor/fake/domain.ts';
import type { FrameNumber } from '../../../runtime/hypervisor/frame.ts';
import { type GuestVirtual, guestVirtual } from '../../../runtime/memory/address.ts';
import { PagedAddressSpace } from '../../../runtime/memory/address-space.ts';
import { FOUR_LEVEL } from '../../../runtime/memory/paging.ts';
import type { AddressSpace } from '../../../runtime/memory/types.ts';

/** 32 MiB. */
const FRAMES = 8192;
const END = FRAMES * 4096;
/** Objects are above the page tables and what a test puts there itself. */
const FIRST = 0x40_0000;

/** Memory of a model guest: a fake domain, mapped one to one, in which objects are laid out one after the other. */
export class ModelMemory {
  readonly domain: FakeDomain;
  readonly space: AddressSpace;
  #next = FIRST;

  constructor(options: FakeDomainOptions<FrameNumber> = {}) {
    this.domain = new FakeDomain({ ram: [{ first: 0, count: FRAMES }], ...options });
    // By 2 MiB pages.
    const entry = (address: number, value: bigint) =>
      this.put(BigInt(address), { offset: 0, size: 8 }, value);
    entry(0x1000, 0x2003n);
    entry(0x2000, 0x3003n);
    for (let i = 0; i < 16; i++) entry(0x3000 + 8 * i, (BigInt(i) << 21n) | 0x83n);
    const mode = { split: FOUR_LEVEL, physicalBits: 46, noExecute: true, largePages: [2, 3] };
    this.space = new PagedAddressSpace(this.domain, mode, 0x1000);
  }

  /** A member of the object at `base`, unsigned. */
  load(base: bigint, { offset, size }: Word): bigint {
    const bytes = this.domain.image.load(Number(base) + offset, size);
    return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }

  put(base: bigint, { offset, size }: Word, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, value), true);
    this.domain.image.store(Number(base) + offset, bytes.subarray(0, size));
  }

  /** Room for an object, zeroed. */
  take(size: number, alignment = 64): GuestVirtual {
    const address = Math.ceil(this.#next / alignment) * alignment;
    this.#next = address + size;
    if (this.#next > END) throw new Error('the model guest is out of memory');
    return guestVirtual(BigInt(address));
  }
}
