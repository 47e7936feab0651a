import type { FrameNumber } from '../hypervisor/frame.ts';
import type { Domain } from '../hypervisor/types.ts';
import type { GuestVirtual } from './address.ts';
import type { FaultFacts } from './fault.ts';
import type { ReadBatch } from './read-batch.ts';

/** Where an address is, and the access rights there. */
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

/** Structure of the guest's page tables. Paging is data, so one walker serves every mode. */
export interface PagingMode {
  /** Address bits that each level uses, top first; the last is the offset: `[9, 9, 9, 9, 12]`. */
  readonly split: readonly number[];
  /** Bits of a physical address; an entry with higher bits set is malformed. */
  readonly physicalBits: number;
  /** EFER.NXE: if set, bit 63 of an entry means no-execute; otherwise it is reserved. */
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
 * A guest's virtual memory under one set of page tables. Cached data is valid for one generation of the domain and
 * checked against the guest's tables before later use.
 */
export interface AddressSpace<F extends FrameNumber = FrameNumber> {
  readonly domain: Domain<F>;
  readonly mode: PagingMode;
  /** Physical address of the topmost table. */
  readonly root: number;

  /**
   * The primitive: reads the whole batch with as few calls as possible. Check `batch.mapped(i)` and `batch.fault(i)` of
   * each read, since a structure may be only partly mapped.
   * @returns number of incomplete reads
   * @throws DomschedError `domain-gone`, `host-unreachable`
   */
  read(batch: ReadBatch): number;

  /**
   * Scatter read of complete ranges.
   * @throws DomschedError `translation-fault` for the first one that is not fully mapped
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
   * Bytes up to a NUL, at most `limit`, as latin1. Control characters remain: escape before printing.
   * @throws DomschedError `translation-fault`
   */
  readString(address: GuestVirtual, limit: number): string;

  /** @throws DomschedError `translation-fault` */
  translate(address: GuestVirtual): Translation<F>;
  /** Like {@link translate}, for callers that expect a fault. */
  probe(address: GuestVirtual): Translation<F> | FaultFacts;

  /**
   * Location of a range's bytes, page by page, for writes by a transaction.
   * @throws DomschedError `translation-fault`
   */
  locate(address: GuestVirtual, length: number): readonly { frame: F; offset: number; length: number }[];
}
