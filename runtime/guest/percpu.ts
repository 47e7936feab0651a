import { DomschedError } from '../error.ts';
import { requiredField, sizeOf } from '../layout/members.ts';
import type { SymbolName } from '../members/symbols.ts';
import { type GuestVirtual, guestVirtual } from '../memory/address.ts';
import { KERNEL_MAP } from './identify/regions.ts';
import type { IdentifiedKernel } from './identify/types.ts';
import { percpuAddress, requireSymbolAddress, symbolAddress } from './kernel.ts';

/** Most CPUs of a current kernel: CONFIG_NR_CPUS with MAXSMP is 8192, and hypervisors stop far earlier. */
const MAX_CPUS = 4096;
/** Most CPUs of a kernel with a `x8664_pda`. */
const MAX_PDA_CPUS = 255;

/** One online CPU, and where its per-CPU variables are. */
export interface GuestCpu {
  /** The kernel's own number of the CPU. */
  readonly cpu: number;
  /** Value to add to the address of a per-CPU variable. */
  readonly area: bigint;
  /** Address of its `x8664_pda`, if the kernel has one. */
  readonly pda: GuestVirtual | undefined;
}

/**
 * The CPUs that the guest's kernel lists as online.
 * @throws DomschedError `guest-inconsistent`, `layout-absent-member`, `translation-fault`
 */
export function onlineCpus(kernel: IdentifiedKernel): readonly GuestCpu[] {
  const cpus = hasOneCpu(kernel)
    ? [ONLY_CPU]
    : symbolAddress(kernel, '_cpu_pda') === undefined
      ? byOffsets(kernel)
      : byPdas(kernel);
  if (cpus.length > 0) return cpus;
  throw new DomschedError('guest-inconsistent', `${name(kernel)}: its kernel says that no CPU is online`, {
    domain: name(kernel),
  });
}

/** Address of one CPU's copy of a per-CPU variable. @throws DomschedError `layout-absent-member` */
export function percpuVariable(kernel: IdentifiedKernel, variable: SymbolName, cpu: GuestCpu): GuestVirtual {
  const { layout } = kernel;
  const old = variable === 'runqueues' ? layout.symbol('per_cpu__runqueues') : undefined;
  const linked = layout.symbol(variable) ?? old ?? layout.requireSymbol(variable);
  return percpuAddress(kernel, linked, cpu.area);
}

/** Its variables are where they are linked. */
const ONLY_CPU: GuestCpu = { cpu: 0, area: 0n, pda: undefined };

/**
 * Whether a kernel is for one CPU (no CONFIG_SMP): it has no table of areas, and its per-CPU variables are ordinary ones
 * (include/linux/percpu-defs.h, PER_CPU_BASE_SECTION).
 */
function hasOneCpu({ layout }: IdentifiedKernel): boolean {
  if (layout.symbol('__per_cpu_offset') !== undefined || layout.symbol('_cpu_pda') !== undefined)
    return false;
  return (layout.symbol('runqueues') ?? 0n) >= KERNEL_MAP;
}

/** Kernels without PDAs (since 2.6.30) have a table of areas and a mask of online CPUs. */
function byOffsets(kernel: IdentifiedKernel): GuestCpu[] {
  const { space } = kernel;
  const table = requireSymbolAddress(kernel, '__per_cpu_offset');
  const mask = symbolAddress(kernel, '__cpu_online_mask') ?? requireSymbolAddress(kernel, 'cpu_online_map');
  const count = cpuCount(kernel);
  const online = space.readBytes(mask, Math.ceil(count / 64) * 8);
  const areas = new BigUint64Array(space.readBytes(table, count * 8).slice().buffer);
  const cpus: GuestCpu[] = [];
  for (let cpu = 0; cpu < count; cpu++) {
    if (((online[cpu >> 3]! >> (cpu & 7)) & 1) === 0) continue;
    cpus.push({ cpu, area: areas[cpu]!, pda: undefined });
  }
  return cpus;
}

/** Number of possible CPUs: the size of the kernel's tables. */
function cpuCount(kernel: IdentifiedKernel): number {
  const address = symbolAddress(kernel, 'nr_cpu_ids');
  // Without the variable the number is fixed: we read one word of the mask, and the kernel uses a part of it.
  if (address === undefined) return 64;
  const count = kernel.space.readU32(address);
  if (count >= 1 && count <= MAX_CPUS) return count;
  throw new DomschedError(
    'guest-inconsistent',
    `${name(kernel)}: nr_cpu_ids is ${count}, which no machine has`,
    {
      domain: name(kernel),
      count,
    },
  );
}

/** 2.6.16 has an array of pointers to PDAs; those of CPUs that never came up are empty. */
function byPdas(kernel: IdentifiedKernel): GuestCpu[] {
  const { space, layout } = kernel;
  const table = requireSymbolAddress(kernel, '_cpu_pda');
  const size = sizeOf(layout, 'x8664_pda');
  const number = requiredField(layout, 'x8664_pda', 'cpunumber');
  const area = requiredField(layout, 'x8664_pda', 'data_offset');
  const current = requiredField(layout, 'x8664_pda', 'pcurrent');
  const cpus: GuestCpu[] = [];
  for (let cpu = 0; cpu < MAX_PDA_CPUS; cpu++) {
    const address = space.readPointer(guestVirtual(table + BigInt(8 * cpu)));
    // No layout has the array's length; it ends where the next CPU has no PDA.
    let bytes: Uint8Array;
    try {
      bytes = space.readBytes(address, size);
    } catch (error) {
      if ((error as { code?: string }).code !== 'translation-fault') throw error;
      break;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (number.number(view) !== cpu || current.bigint(view) === 0n) break;
    cpus.push({ cpu, area: area.bigint(view), pda: address });
  }
  return cpus;
}

function name(kernel: IdentifiedKernel): string {
  return kernel.space.domain.identity.name;
}
