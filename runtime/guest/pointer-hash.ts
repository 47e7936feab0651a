const WORD = 0x1_0000_0000;
/** Bytes of a pointer, without the three bits that are always 0. */
const POINTER_BYTES = 8;
/**
 * Simple tabulation hashing: a random word for each byte of a pointer and each value of it, new in every process. A
 * guest chooses where its objects are and must not be able to choose which of them collide. With linear probing this
 * keeps look-ups constant (Patrascu and Thorup, The Power of Simple Tabulation Hashing, 2011).
 */
const SPREAD = crypto.getRandomValues(new Int32Array(256 * POINTER_BYTES));

/** A 32-bit hash of a pointer that cannot be predicted without seeing this process's memory. */
export function pointerHash(pointer: number): number {
  const eighth = pointer / 8;
  const high = Math.floor(eighth / WORD) | 0;
  const low = eighth | 0;
  return (
    (SPREAD[low & 0xff]! ^
      SPREAD[0x100 | ((low >>> 8) & 0xff)]! ^
      SPREAD[0x200 | ((low >>> 16) & 0xff)]! ^
      SPREAD[0x300 | (low >>> 24)]! ^
      SPREAD[0x400 | (high & 0xff)]! ^
      SPREAD[0x500 | ((high >>> 8) & 0xff)]! ^
      SPREAD[0x600 | ((high >>> 16) & 0xff)]! ^
      SPREAD[0x700 | (high >>> 24)]!) >>>
    0
  );
}
