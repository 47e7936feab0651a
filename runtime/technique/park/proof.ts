import type { MemoryView } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import type { VcpuRegisters } from '../../hypervisor/types.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';

/** `endbr64` (Intel SDM vol. 2, ENDBR64). */
const ENDBR64 = [0xf3, 0x0f, 0x1e, 0xfa];
/** CR4.CET (Intel SDM vol. 3A, 2.5). */
const CR4_CET = 1n << 23n;
/** `mov $imm32, %eax`, which holds the hash of a function's type before each function of a kCFI kernel. */
const MOV_EAX = 0xb8;
const MOV_EAX_SIZE = 5;
/**
 * How far before a function its hash begins: right before it, or before the padding that brings both to the alignment of
 * functions (arch/x86/Kconfig, FUNCTION_PADDING_CFI; "x86/Kconfig: Introduce function padding", 6.2).
 */
const HASH_PLACES = [MOV_EAX_SIZE, 8, 16, 32, 64];
const FURTHEST = Math.max(...HASH_PLACES);
const NOP = 0x90;
/** `sarq $5, %gs:…`, call depth tracking, which is written over a part of the padding (arch/x86/kernel/callthunks.c). */
const CALL_DEPTH = [0x65, 0x48, 0xc1];
/** `sub $imm32, %r10d` and `sub $imm32, %eax`: how FineIBT compares the hash of its caller (6.2; 6.15). */
const SUBTRACTIONS = [[0x41, 0x81, 0xea], [0x2d]];

/**
 * Why the guest may not call a function through a pointer that its compiler did not see, by the bytes before the function;
 * null where they say nothing against it. Kernels with kCFI ("cfi: Switch to -fsanitize=kcfi", 6.1) have the hash of its
 * type there, or the comparison with it that FineIBT makes of that at boot ("x86/ibt: Implement FineIBT", 6.2), and the
 * hash that goes with the pointer is another one.
 */
export function typesRefusal(memory: MemoryView, address: GuestVirtual): string | null {
  const code = memory.block(advance(address, -FURTHEST), FURTHEST);
  const before = new Uint8Array(code.buffer, code.byteOffset, FURTHEST);
  return HASH_PLACES.some((place) => isHash(before.subarray(FURTHEST - place)))
    ? 'the kernel checks the types of functions it calls (kCFI)'
    : null;
}

/** @param bytes from where a hash may be up to the function */
function isHash(bytes: Uint8Array): boolean {
  if (begins(bytes, ENDBR64)) return SUBTRACTIONS.some((sub) => begins(bytes.subarray(ENDBR64.length), sub));
  if (bytes[0] !== MOV_EAX) return false;
  const other = bytes.subarray(MOV_EAX_SIZE).findIndex((byte) => byte !== NOP);
  return other < 0 || begins(bytes.subarray(MOV_EAX_SIZE + other), CALL_DEPTH);
}

function begins(bytes: Uint8Array, pattern: readonly number[]): boolean {
  return pattern.every((byte, index) => bytes[index] === byte);
}

/**
 * Proves that the guest may call a function through a pointer that its compiler did not see.
 *
 * With indirect branch tracking on, the function must begin with `endbr64`, which the kernel removes from functions
 * that it never calls indirectly ("x86/alternative: Use .ibt_endbr_seal to seal indirect calls", 5.18). Nor may it check
 * types, see {@link typesRefusal}.
 *
 * @param lacksTracking whether no vCPU of the domain can track indirect branches, see `Domain.lacksBranchTracking`
 * @throws DomschedError `refused`
 */
export function proveCallable(
  memory: MemoryView,
  address: GuestVirtual,
  registers: readonly VcpuRegisters[],
  lacksTracking = false,
): void {
  const refuse = (why: string) =>
    new DomschedError('refused', `${why}: this guest would not survive a forged call; nothing was changed`, {
      address: formatAddress(address),
    });
  const types = typesRefusal(memory, address);
  if (types !== null) throw refuse(types);
  const { buffer, byteOffset } = memory.block(address, ENDBR64.length);
  if (lacksTracking || begins(new Uint8Array(buffer, byteOffset, ENDBR64.length), ENDBR64)) return;
  if (registers.length === 0)
    throw refuse('whether the kernel tracks indirect branches (IBT) cannot be told');
  if (registers.some(({ cr4 }) => (cr4 & CR4_CET) !== 0n))
    throw refuse('the kernel tracks indirect branches (IBT)');
}
