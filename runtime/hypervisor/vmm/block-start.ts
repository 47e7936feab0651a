/** Bytes of code that identify the start of a translated block, and bytes before a thread that may belong to it. */
export const CODE_BYTES = 16;
export const BEFORE_BYTES = 16;

/** Length of `jl rel32`. */
const JUMP_BYTES = 6;

/**
 * Whether a thread is about to run one of the first four instructions of a translated block. Three check for an exit
 * request in a counter below the guest's state, to which RBP points (QEMU accel/tcg, `gen_tb_start()`): `mov -N(%rbp),
 * %r; test %r, %r; jl`. None of the three touches the guest.
 * @param at offset of the next instruction, with {@link BEFORE_BYTES} before and {@link CODE_BYTES} from there on
 */
export function standsAtBlockStart(bytes: Uint8Array, at: number): boolean {
  // Lengths of the load, of load and test, and of all three, with and without prefixes.
  return [0, 3, 4, 5, 7, 11, 13].some((past) => {
    const start = bytes.subarray(at - past);
    if (!startsBlock(start)) return false;
    const load = isPrefix(start[0]!) ? 4 : 3;
    const test = load + (isPrefix(start[load]!) ? 3 : 2);
    return [0, load, test, test + JUMP_BYTES].includes(past);
  });
}

/** @param bytes code, at least {@link CODE_BYTES} */
export function startsBlock(bytes: Uint8Array): boolean {
  // Either of the first two instructions may have a prefix for the upper registers.
  let at = isPrefix(bytes[0]!) ? 1 : 0;
  const [load, place, distance] = [bytes[at]!, bytes[at + 1]!, bytes[at + 2]!];
  // mov r32, disp8(%rbp) has mod 01 and rm 101; the displacement is negative.
  if (load !== 0x8b || (place & 0xc7) !== 0x45 || distance < 0x80) return false;
  at += isPrefix(bytes[at + 3]!) ? 4 : 3;
  const register = (place >> 3) & 7;
  // The next is test r32, r32 of the same register.
  if (bytes[at] !== 0x85 || bytes[at + 1] !== (0xc0 | (register << 3) | register)) return false;
  return bytes[at + 2] === 0x0f && bytes[at + 3] === 0x8c;
}

function isPrefix(byte: number): boolean {
  return byte >= 0x40 && byte <= 0x4f;
}
