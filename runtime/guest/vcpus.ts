import type { VcpuRegisters } from '../hypervisor/types.ts';
import { type GuestVirtual, guestVirtual } from '../memory/address.ts';
import { isFault } from '../memory/walker.ts';
import type { Guest } from './guest.ts';

/** Places that a CPU's registers point to. */
export interface CpuMarks {
  /** The kernel's number of the CPU. */
  readonly cpu: number;
  /** The kernel's GS base: its per-CPU area, or its `x8664_pda`. */
  readonly gsBase: bigint;
  /** Its task-state segment; undefined if the layout does not have it. */
  readonly tss: GuestVirtual | undefined;
}

/** Gives the place of an address in memory in a form that can be compared; undefined if it is not mapped. */
export type PlaceOf = (address: GuestVirtual) => string | undefined;

/**
 * The per-CPU variable that begins with the hardware's task-state segment; it has this name since "x86/entry/64: Make
 * cpu_entry_area.tss read-only", 4.15.
 */
const TSS = 'cpu_tss_rw';

/**
 * Matches the kernel's CPUs to vCPUs by their registers. The numbers of the hypervisor and of the kernel need not
 * agree: the kernel numbers hot-plugged CPUs in the order in which they came.
 *
 * @returns keyed by the kernel's CPU number; CPUs that could not be matched are omitted
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
 * Two registers identify a vCPU's CPU, and no program can change either: the kernel's GS base, which is the CPU's
 * per-CPU area, and the base of the task-state segment. The kernel maps the latter again for its entry code
 * ("x86/entry: Remap the TSS into the CPU entry area", 4.15), so places in memory are compared, not addresses. A vCPU
 * that contradicts itself or another one proves nothing.
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
 * Values that may be the kernel's GS base. In user mode GS is the program's and may hold anything. In the kernel it is
 * the kernel's, except for a few instructions of entry code before and after `swapgs`.
 */
function kernelGsBases({ cpl, gsBase, kernelGsBase }: VcpuRegisters): bigint[] {
  const swapped = kernelGsBase === undefined ? [] : [kernelGsBase];
  return cpl === 0 ? [gsBase, ...swapped] : swapped;
}
