import { readdirSync, readFileSync } from 'node:fs';

/**
 * Names of threads that run a guest's CPUs, in QEMU (`softmmu/cpus.c`, `accel/tcg`), Firecracker, Cloud Hypervisor,
 * crosvm and kvmtool.
 */
const VCPU = /^(CPU \d+\/|ALL CPUs\/)|vcpu/;
/** Names of threads with which QEMU moves a machine's memory (migration/migration.c, multifd.c). */
const MOVING = /^(live_migration|mig\/|multifd|bg_snapshot|postcopy|COLO|colo)/;

export interface HostThread {
  readonly tid: number;
  readonly name: string;
}

/** Threads of a process, the main one first. Empty if it has ended. */
export function threadsOf(pid: number): HostThread[] {
  let names: string[];
  try {
    names = readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
  return names.flatMap((tid) => {
    const name = nameOf(pid, tid);
    return name === undefined ? [] : [{ tid: Number(tid), name }];
  });
}

function nameOf(pid: number, tid: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/task/${tid}/comm`, 'latin1').trimEnd();
  } catch {
    return undefined;
  }
}

/** Threads of a machine's process, by purpose. */
export interface MachineThreads {
  /** All threads that may run a CPU of the guest: those named after a CPU, then those without an own name (yet). */
  readonly vcpus: readonly number[];
  /** Number of threads with a CPU's name. */
  readonly named: number;
  /** Name of a thread that moves the guest's memory, if there is one. */
  readonly moving: string | undefined;
}

/**
 * Sorts the threads of a machine. QEMU names them if it has `-name …,debug-threads=on`, as with libvirt and Proxmox.
 * Otherwise all have the main thread's name, and all others count as CPUs, which may be too many but never too few. A
 * new thread also counts until it has named itself.
 */
export function machineThreads(pid: number, threads: readonly HostThread[] = threadsOf(pid)): MachineThreads {
  const main = threads.find(({ tid }) => tid === pid)?.name;
  const named = threads.filter(({ name }) => VCPU.test(name));
  const nameless = threads.filter(({ tid, name }) => tid !== pid && name === main);
  return {
    vcpus: [...named, ...nameless].map(({ tid }) => tid),
    named: named.length,
    moving: threads.find(({ name }) => MOVING.test(name))?.name,
  };
}
