import { readdirSync, readFileSync } from 'node:fs';

/**
 * Names of threads that run a guest's CPUs: QEMU's (`softmmu/cpus.c`, `accel/tcg`), those of Firecracker, Cloud Hypervisor,
 * crosvm and kvmtool.
 */
const VCPU = /^(CPU \d+\/|ALL CPUs\/)|vcpu/;
/** Names under which QEMU and its kernel module's helpers move a machine's memory (migration/migration.c, multifd.c). */
const MOVING = /^(live_migration|mig\/|multifd|bg_snapshot|postcopy|COLO|colo)/;

export interface HostThread {
  readonly tid: number;
  readonly name: string;
}

/** Threads of a process, the main one first. Empty where it has ended. */
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

/** Threads of a machine's process by what they are for. */
export interface MachineThreads {
  /** All that may run a CPU of the guest: those that are called so, then those that have no name of their own (yet). */
  readonly vcpus: readonly number[];
  /** Those that are called a CPU's. */
  readonly named: number;
  /** A thread that moves the guest's memory, where there is one. */
  readonly moving: string | undefined;
}

/**
 * Sorts the threads of a machine. QEMU names its threads where `-name …,debug-threads=on` says so, as libvirt and Proxmox
 * have it; otherwise all are called as the main one, and all but that one count as CPUs: more than needed, never less.
 * So does a thread that was just made, until it has named itself.
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
