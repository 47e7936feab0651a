import type { VcpuRegisters } from '../hypervisor/types.ts';
import { type GuestVirtual, guestVirtual } from '../memory/address.ts';
import { isFault } from '../memory/walker.ts';
import type { Guest } from './guest.ts';

/** What of a CPU its registers lead to. */
export interface CpuMarks {
  /** The kernel's number. */
  readonly cpu: number;
  /** Its per-CPU area, or its `x8664_pda`: the kernel's GS base. */
  readonly gsBase: bigint;
  /** Its task-state segment; undefined where the layout doesn't tell. */
  readonly tss: GuestVirtual | undefined;
}

/** Where an address is in memory, as something that can be compared; undefined where nothing is mapped. */
export type PlaceOf = (address: GuestVirtual) => string | undefined;

/**
 * The per-CPU variable with the task-state segment, the hardware's part of it first: its name since "x86/entry/64: Make
 * cpu_entry_area.tss read-only", 4.15.
 */
const TSS = 'cpu_tss_rw';

/**
 * Which vCPU each of the kernel's CPUs is, with what is in its registers. The hypervisor's numbers and the kernel's
 * need not agree: CPUs that were plugged in have theirs by the order in which they came.
 *
 * @returns by the kernel's number; a CPU of which it is not proved is not there
 */
export function vcpusByCpu(
  guest: Pick<Guest, 'cpus' | 'layout' | 'percpu' | 'space'>,
  registers: readonly VcpuRegisters[],
): ReadonlyMap<number, VcpuRegisters> {
  const hasTss = guest.layout.symbol(TSS) !== undefined;
  const marks = guest.cpus.map((cpu) => ({
    cpu: cpu.cpu,
    gsBase: cpu.pda ?? cpu.area,
    tss: hasTss ? guest.percpu(TSS, cpu) : undefined,
  }));
  return matchVcpus(marks, registers, (address) => {
    const found = guest.space.probe(address);
    return isFault(found) ? undefined : `${found.frame}:${found.offset}`;
  });
}

/**
 * Two registers tell a vCPU's CPU, and neither can be changed by a program: the kernel's GS base, which is the CPU's
 * per-CPU area, and the base of the task-state segment. The kernel maps the latter a second time for its entry code
 * ("x86/entry: Remap the TSS into the CPU entry area", 4.15), so places in memory are compared, not addresses. What
 * contradicts itself, or another vCPU, is no proof.
 */
export function matchVcpus(
  cpus: readonly CpuMarks[],
  registers: readonly VcpuRegisters[],
  placeOf: PlaceOf,
): ReadonlyMap<number, VcpuRegisters> {
  const byGs = new Map(cpus.map(({ cpu, gsBase }) => [BigInt.asUintN(64, gsBase), cpu]));
  const byTss = new Map<string, number>();
  for (const { cpu, tss } of cpus) {
    const place = tss === undefined ? undefined : placeOf(tss);
    if (place !== undefined) byTss.set(place, cpu);
  }
  const found = new Map<number, VcpuRegisters>();
  const claimed = new Set<number>();
  for (const vcpu of registers) {
    const place = vcpu.tssBase === undefined ? undefined : placeOf(guestVirtual(vcpu.tssBase));
    const proofs = new Set(kernelGsBases(vcpu).map((base) => byGs.get(base)));
    proofs.add(place === undefined ? undefined : byTss.get(place));
    proofs.delete(undefined);
    const [cpu] = proofs;
    if (cpu === undefined || proofs.size > 1) continue;
    if (claimed.has(cpu)) found.delete(cpu);
    else found.set(cpu, vcpu);
    claimed.add(cpu);
  }
  return found;
}

/**
 * What may be the kernel's GS base. In user mode GS is the program's, which may hold anything; in the kernel it is the
 * kernel's, but for a few instructions of entry code, before and after `swapgs`.
 */
function kernelGsBases({ cpl, gsBase, kernelGsBase }: VcpuRegisters): bigint[] {
  const swapped = kernelGsBase === undefined ? [] : [kernelGsBase];
  return cpl === 0 ? [gsBase, ...swapped] : swapped;
}
