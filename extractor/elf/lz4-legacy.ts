import { ExtractError } from '../error.ts';

/**
 * LZ4 "legacy frame", which the kernel's build makes with `lz4 -l`: magic, then blocks, each a 32-bit size and as many
 * bytes. Each block decompresses to 8 MiB, the last one to less (lz4_Frame_format.md, "Legacy frame"). Written here
 * because Node's zlib has no LZ4, and npm's packages are unmaintained or bring a native library per platform that does
 * not support this frame.
 */
export const LZ4_LEGACY_MAGIC = 0x184c2102;
export const LZ4_LEGACY_BLOCK = 8 << 20;
/** LZ4_COMPRESSBOUND: greatest size of an incompressible block. */
export const LZ4_LEGACY_PACKED_BLOCK = LZ4_LEGACY_BLOCK + Math.floor(LZ4_LEGACY_BLOCK / 255) + 16;

/** Matches are at least this long (lz4_Block_format.md). */
const MIN_MATCH = 4;

/**
 * Decompresses one LZ4 block into `target`, never beyond its end.
 * @returns how many bytes of `target` are now filled
 * @throws ExtractError `corrupt-archive`
 */
export function decodeLz4Block(packed: Uint8Array, target: Uint8Array): number {
  let from = 0;
  let to = 0;

  /** A length of 15 continues in bytes, up to and including the first that is not 255. */
  const extended = (length: number): number => {
    if (length !== 15) return length;
    let byte: number | undefined;
    do {
      byte = packed[from++];
      if (byte === undefined) throw damaged('a length runs over the end of its block');
      length += byte;
    } while (byte === 255);
    return length;
  };

  while (from < packed.length) {
    const token = packed[from++]!;
    const literals = extended(token >> 4);
    if (from + literals > packed.length || to + literals > target.length) {
      throw damaged('literals run over the end of their block');
    }
    target.set(packed.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    // The last sequence of a block has only literals.
    if (from === packed.length) return to;

    if (from + 2 > packed.length) throw damaged('a match has no offset');
    const distance = packed[from]! | (packed[from + 1]! << 8);
    from += 2;
    const length = extended(token & 15) + MIN_MATCH;
    if (distance === 0 || distance > to) throw damaged('a match starts before its block');
    if (to + length > target.length) throw damaged('a match runs over the end of its block');
    if (distance >= length) {
      target.copyWithin(to, to - distance, to - distance + length);
    } else {
      // The ranges overlap: bytes just written are repeated.
      for (let index = 0; index < length; index++) target[to + index] = target[to + index - distance]!;
    }
    to += length;
  }
  throw damaged('a block ends without literals');
}

function damaged(what: string): ExtractError {
  return new ExtractError('corrupt-archive', `damaged LZ4 data: ${what}; fetch or copy the file again`, {
    what,
  });
}
