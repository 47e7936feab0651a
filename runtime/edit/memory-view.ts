import type { GuestVirtual } from '../memory/address.ts';

/** Width in bytes of a word that an edit reads or writes. */
export type WordSize = 1 | 2 | 4 | 8;

/** Guest memory as plans and invariants see it: a copy, so looking has no effect. Little-endian. */
export interface MemoryView {
  /**
   * Unsigned word of `size` bytes.
   * @throws DomschedError `translation-fault`
   */
  word(address: GuestVirtual, size: WordSize): bigint;
  /** Signed word of `size` bytes. */
  signed(address: GuestVirtual, size: WordSize): bigint;
  /** An 8-byte pointer; not checked. */
  pointer(address: GuestVirtual): GuestVirtual;
  /** A copy of `length` bytes, for callers that look at many words. */
  block(address: GuestVirtual, length: number): DataView;
}

/** Unsigned word of `size` bytes in a block. */
export function wordIn(block: DataView, offset: number, size: WordSize): bigint {
  switch (size) {
    case 1:
      return BigInt(block.getUint8(offset));
    case 2:
      return BigInt(block.getUint16(offset, true));
    case 4:
      return BigInt(block.getUint32(offset, true));
    case 8:
      return block.getBigUint64(offset, true);
  }
}
