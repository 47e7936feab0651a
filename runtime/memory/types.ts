import type { FrameNumber } from '../hypervisor/frame.ts';
import type { Domain } from '../hypervisor/types.ts';
import type { GuestVirtual } from './address.ts';
import type { FaultFacts } from './fault.ts';
import type { ReadBatch } from './read-batch.ts';

/** Where an address is, and what may be done there. */
export interface Translation<F extends FrameNumber = FrameNumber> {
  readonly frame: F;
  /** Byte in the frame. */
  readonly offset: number;
  /** 4096, 2 MiB or 1 GiB. */
  readonly pageSize: number;
  readonly writable: boolean;
  readonly user: boolean;
  readonly executable: boolean;
}

/** How the guest's page tables are built. Paging is data: one walker serves every mode. */
export interface PagingMode {
  /** Address bits that each level takes, top first; the last is the offset: `[9, 9, 9, 9, 12]`. */
  readonly split: readonly number[];
  /** Bits of a physical address; entries with higher ones set are malformed. */
  readonly physicalBits: number;
  /** EFER.NXE: bit 63 of an entry means no-execute; clear, it is reserved. */
  readonly noExecute: boolean;
  /** Levels (1 = last) at which an entry may map a large page: `[2, 3]` with 1 GiB pages. */
  readonly largePages: readonly number[];
}

/** One read of a scatter list: `into.length` bytes from `address`. */
export interface ReadRequest {
  readonly address: GuestVirtual;
  readonly into: Uint8Array;
}

/**
 * A guest's virtual memory under one set of page tables. What it caches lives for one generation of the domain:
 * at the next it is checked against the guest's tables before it is used again.
 */
export interface AddressSpace<F extends FrameNumber = FrameNumber> {
  readonly domain: Domain<F>;
  readonly mode: PagingMode;
  /** Physical address of the topmost table. */
  readonly root: number;

  /**
   * The primitive: reads everything in the batch with as few calls as possible. Look at `batch.mapped(i)` and
   * `batch.fault(i)` for each: a structure may be there in part.
   * @returns how many reads are incomplete
   * @throws DomschedError `domain-gone`, `host-unreachable`
   */
  read(batch: ReadBatch): number;

  /**
   * Scatter read of complete ranges.
   * @throws DomschedError `translation-fault` for the first that is not mapped to its end
   */
  readAll(requests: readonly ReadRequest[]): void;

  /** @throws DomschedError `translation-fault` */
  readBytes(address: GuestVirtual, length: number): Uint8Array;
  /** @throws DomschedError `translation-fault` */
  readU32(address: GuestVirtual): number;
  /** @throws DomschedError `translation-fault` */
  readU64(address: GuestVirtual): bigint;
  /** @throws DomschedError `translation-fault` */
  readPointer(address: GuestVirtual): GuestVirtual;
  /**
   * Bytes up to a NUL, at most `limit`, as latin1; control characters are left in: escape before printing.
   * @throws DomschedError `translation-fault`
   */
  readString(address: GuestVirtual, limit: number): string;

  /** @throws DomschedError `translation-fault` */
  translate(address: GuestVirtual): Translation<F>;
  /** Like {@link translate}, for those who expect a fault. */
  probe(address: GuestVirtual): Translation<F> | FaultFacts;

  /**
   * Where the bytes of a range are, page by page: what a transaction writes to.
   * @throws DomschedError `translation-fault`
   */
  locate(address: GuestVirtual, length: number): readonly { frame: F; offset: number; length: number }[];
}
