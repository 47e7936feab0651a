import type { MemoryView } from '../../edit/memory-view.ts';
import { DomschedError } from '../../error.ts';
import type { VcpuRegisters } from '../../hypervisor/types.ts';
import { advance, formatAddress, type GuestVirtual } from '../../memory/address.ts';

/** `endbr64` (Intel SDM vol. 2, ENDBR64), little-endian. */
const ENDBR64 = 0xfa1e_0ff3;
/** CR4.CET (Intel SDM vol. 3A, 2.5). */
const CR4_CET = 1n << 23n;
/** `mov $imm32, %eax`, which holds the hash of a function's type before each function of a kCFI kernel. */
const MOV_EAX = 0xb8;
const KCFI_PREFIX = 5;

/**
 * Proves that the guest may call a function through a pointer that its compiler did not see.
 *
 * With indirect branch tracking on, the function must begin with `endbr64`, which the kernel removes from functions
 * that it never calls indirectly ("x86/alternative: Use .ibt_endbr_seal to seal indirect calls", 5.18). With kCFI
 * ("cfi: Switch to -fsanitize=kcfi", 6.1) the hash of its type would have to match the pointer's, and it does not.
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
  const code = memory.block(advance(address, -KCFI_PREFIX), KCFI_PREFIX + 4);
  const refuse = (why: string) =>
    new DomschedError('refused', `${why}: this guest would not survive a forged call; nothing was changed`, {
      address: formatAddress(address),
    });
  if (code.getUint8(0) === MOV_EAX) throw refuse('the kernel checks the types of functions it calls (kCFI)');
  if (code.getUint32(KCFI_PREFIX, true) === ENDBR64 || lacksTracking) return;
  if (registers.length === 0)
    throw refuse('whether the kernel tracks indirect branches (IBT) cannot be told');
  if (registers.some(({ cr4 }) => (cr4 & CR4_CET) !== 0n))
    throw refuse('the kernel tracks indirect branches (IBT)');
}
