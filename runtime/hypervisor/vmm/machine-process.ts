import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import path from 'node:path';
import { type HostProcess, hostProcess } from '../../host-process.ts';
import { commandLine, machineName, optionOf } from './command-line.ts';

/** KVM's names for the file of a virtual machine, and for that of one of its CPUs (virt/kvm/kvm_main.c). */
const KVM_MACHINE = 'anon_inode:kvm-vm';
const KVM_VCPU = /^anon_inode:kvm-vcpu:\d+$/;
/** Names under which QEMU's emulator of x86 machines is shipped. */
const QEMU = /^(qemu-system-(x86_64|i386).*|qemu-kvm|kvm)$/;
/** A younger process may still become a machine, because it opens /dev/kvm some time after its start. */
const SETTLED_S = 30;
const TICKS_PER_S = 100;

/** A process that runs a virtual machine. */
export interface MachineProcess extends HostProcess {
  readonly name: string;
  /** It is QEMU, whose threads, options and machines we know. */
  readonly isQemu: boolean;
  /** Number of CPUs that KVM runs for it; 0 for a machine without KVM, whose instructions a program translates. */
  readonly kvmVcpus: number;
  readonly args: readonly string[];
}

/**
 * Identifies a process by what the kernel knows about it.
 * @returns undefined if it runs no virtual machine, or one that is not ours to look at
 */
export function machineOf(pid: number): MachineProcess | undefined {
  const found = hostProcess(pid);
  if (found === undefined) return undefined;
  const isQemu = QEMU.test(programOf(pid));
  const kvm = filesOf(pid);
  if (!isQemu && !kvm.machine) return undefined;
  const args = commandLine(pid);
  // Xen runs that machine and knows it; this process has only its devices.
  if (optionOf(args, 'xen-domid') !== undefined) return undefined;
  const started = hostProcess(pid)?.started;
  if (started !== found.started) return undefined;
  return { ...found, name: machineName(args) ?? String(pid), isQemu, kvmVcpus: kvm.vcpus, args };
}

/** A QEMU of another user, of which we may see no more than its command line. */
export interface ForeignMachine extends HostProcess {
  readonly name: string;
  readonly uid: number;
}

/** @returns undefined if we may see which program the process executes, or its command line is not QEMU's */
export function foreignMachine(pid: number): ForeignMachine | undefined {
  const found = hostProcess(pid);
  if (found === undefined || !isHidden(pid)) return undefined;
  const args = commandLine(pid);
  if (!QEMU.test(path.basename(args[0] ?? ''))) return undefined;
  try {
    const { uid } = statSync(`/proc/${pid}`);
    return { ...found, name: machineName(args) ?? String(pid), uid };
  } catch {
    // It has ended.
    return undefined;
  }
}

/** Searches for machines repeatedly without looking again at processes that are not machines. */
export class MachineSearch {
  /** Start times of processes that are not machines. */
  readonly #others = new Map<number, number>();
  readonly #machines = new Map<number, MachineProcess>();
  readonly #foreign = new Map<number, ForeignMachine>();

  /** All machines of this host that we can see, also in containers and other PID namespaces. */
  find(): readonly MachineProcess[] {
    const found: MachineProcess[] = [];
    const pids = new Set(processes());
    for (const pid of pids) {
      const started = hostProcess(pid)?.started;
      if (started === undefined || this.#others.get(pid) === started) continue;
      const known = this.#machines.get(pid);
      const machine = known?.started === started ? known : machineOf(pid);
      if (machine !== undefined) {
        this.#machines.set(pid, machine);
        found.push(machine);
        continue;
      }
      const foreign = foreignMachine(pid);
      if (foreign !== undefined) this.#foreign.set(pid, foreign);
      else this.#foreign.delete(pid);
      if (ageOf(started) > SETTLED_S) this.#others.set(pid, started);
    }
    for (const known of [this.#others, this.#machines, this.#foreign]) {
      for (const pid of known.keys()) if (!pids.has(pid)) known.delete(pid);
    }
    return found;
  }

  /** Machines of other users that the last search met. */
  get foreign(): readonly ForeignMachine[] {
    return [...this.#foreign.values()];
  }
}

/** Whether the kernel does not let us see which program a process executes. */
function isHidden(pid: number): boolean {
  try {
    readlinkSync(`/proc/${pid}/exe`);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES';
  }
}

function processes(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Seconds since a process started. */
function ageOf(started: number): number {
  return Number.parseFloat(readFileSync('/proc/uptime', 'latin1')) - started / TICKS_PER_S;
}

/** Name of the file that a process executes, as its own mount namespace has it. */
function programOf(pid: number): string {
  return path.basename(linkOf(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, ''));
}

function filesOf(pid: number): { machine: boolean; vcpus: number } {
  let machine = false;
  let vcpus = 0;
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const link = linkOf(`/proc/${pid}/fd/${fd}`);
      if (link === KVM_MACHINE) machine = true;
      else if (KVM_VCPU.test(link)) vcpus += 1;
    }
  } catch {
    // It is another user's, or has ended.
  }
  return { machine, vcpus };
}

function linkOf(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}
