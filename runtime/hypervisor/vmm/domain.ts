import { readFileSync } from 'node:fs';
import { DomschedError } from '../../error.ts';
import { type HostProcess, isAlive } from '../../host-process.ts';
import { onExit } from '../exit-guard.ts';
import type { GuestFrame } from '../frame.ts';
import { LiveDomain } from '../live-domain.ts';
import { PauseCounter } from '../pause-counter.ts';
import { cgroupScheduler } from '../qemu/cgroup-scheduler.ts';
import { processState } from '../qemu/qemu-process.ts';
import { isStopped, stopped } from '../stopped-process.ts';
import { ThreadTimes } from '../thread-times.ts';
import type {
  Domain,
  DomainIdentity,
  DomainScheduler,
  DomainState,
  FrameReader,
  FrameWriter,
  Pausable,
  PauseUse,
  StandingPause,
} from '../types.ts';
import { Freezer } from './freezer.ts';
import { type ForeignMachine, foreignMachine, type MachineProcess, machineOf } from './machine-process.ts';
import { tracerOfMachine } from './may-trace.ts';
import { ProcessPause } from './process-pause.ts';
import { machineThreads } from './vcpu-threads.ts';

/** A machine's RAM, kept as it is while memory is plugged and unplugged. */
export interface MachineRam extends FrameReader<GuestFrame>, FrameWriter<GuestFrame> {
  /** Looks whether it is still the same. @returns whether it is another one now */
  renew(): boolean;
  /** Whether the process still has all of it as it was found. */
  readonly isCurrent: boolean;
  close(): void;
}

/** A virtual machine reached through the process that runs it, without asking that process anything. */
export class ProcessDomain extends LiveDomain implements Domain<GuestFrame> {
  readonly identity: DomainIdentity;
  readonly frames: FrameReader<GuestFrame>;
  readonly writeFrames: FrameWriter<GuestFrame>;
  readonly pause: Pausable;
  readonly scheduler?: DomainScheduler;
  readonly hostClock: ThreadTimes;
  readonly lacksBranchTracking: boolean;
  readonly #process: HostProcess;
  readonly #ram: MachineRam;
  readonly #pause: ProcessPause;
  readonly #counter: PauseCounter;
  #takeBack: (() => void) | undefined;
  #closed = false;

  /** @param ram memory of that very process, closed with the domain */
  constructor(machine: MachineProcess, ram: MachineRam) {
    super();
    const { pid, started } = machine;
    this.identity = identityOf(machine);
    // QEMU's translator cannot do it (target/i386/cpu.c, TCG_7_0_EDX_FEATURES); KVM's CPUs can if the host's can.
    this.lacksBranchTracking = machine.kvmVcpus === 0 || !hostTracksBranches();
    this.#process = { pid, started };
    this.#ram = ram;
    this.hostClock = new ThreadTimes(pid, () => machineThreads(pid).vcpus);
    this.frames = ram;
    this.writeFrames = ram;
    const freezer = Freezer.of(machine);
    this.#pause = new ProcessPause(machine, freezer);
    this.#counter = new PauseCounter({
      ...(freezer === undefined && { endsWithUs: true }),
      way:
        freezer === undefined
          ? 'tracing the threads of its CPUs, which ends with domsched: it has no control group to itself, whose freezer would not'
          : `tracing the threads of its CPUs, and frozen (${freezer.directory}) while words are written that may not be left half done`,
      stop: (use) => this.#stop(use),
      prove: async () => this.#pause.prove(this.generation),
      isQuiet: () => this.#pause.isQuiet(),
      resume: async () => this.#resume(),
      keepOnDeath: (keep, inParts) => this.#pause.keepOnDeath(keep, inParts),
      abandon: () => this.#over(() => this.#pause.abandon()),
    });
    this.pause = this.#counter;
    const scheduler = cgroupScheduler(pid);
    if (scheduler !== undefined) this.scheduler = scheduler;
  }

  protected override lookAgain(): void {
    this.#ram.renew();
  }

  async state(): Promise<DomainState> {
    return this.#closed ? 'gone' : stateOf(this.#process);
  }

  standing(): StandingPause | undefined {
    const tracer = tracerOfMachine(this.#process.pid);
    if (tracer === undefined || !isStopped(tracer)) return this.#pause.standing();
    // The kernel lets nobody but the tracer end that.
    return { by: 'stopped', pid: tracer, ...stopped(tracer) };
  }

  editRefusal(): DomschedError | undefined {
    return this.#pause.editRefusal();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#counter.releaseAll();
    this.#closed = true;
    this.#ram.close();
    this.hostClock.close();
    this.forgetListeners();
  }

  async #stop(use: PauseUse): Promise<{ foundPaused: boolean }> {
    this.#ram.renew();
    await this.#pause.stop(use);
    // Nobody can unplug memory from a guest that stands.
    if (!this.#ram.isCurrent) {
      this.#pause.resume();
      const { name, pid } = this.identity;
      const message = `${name}: its memory was plugged or unplugged just now; try again`;
      throw new DomschedError('edit-conflict', message, { domain: name, pid, again: true });
    }
    // The kernel lets it go at our end, but not while we are stopped: Ctrl-Z waits.
    this.#takeBack ??= onExit(() => undefined);
    this.mayHaveRun();
    return { foundPaused: false };
  }

  #resume(): void {
    this.mayHaveRun();
    this.#over(() => this.#pause.resume());
  }

  #over(end: () => void): void {
    try {
      end();
    } finally {
      this.#takeBack?.();
      this.#takeBack = undefined;
    }
  }
}

/** Whether the host's CPUs can track indirect branches; if unknown, the answer is yes. */
function hostTracksBranches(): boolean {
  try {
    const flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'latin1'))?.[1];
    return flags === undefined || flags.split(' ').includes('ibt');
  } catch {
    return true;
  }
}

export function identityOf({
  pid,
  started,
  name,
  isQemu,
}: Pick<MachineProcess, 'pid' | 'started' | 'name' | 'isQemu'>): DomainIdentity {
  const connection = `pid:${pid}`;
  return { id: connection, name, hypervisor: isQemu ? 'qemu' : 'kvm', connection, pid, started };
}

/** Number of the guest's CPUs; null if its process does not show them (a QEMU without KVM that names no thread). */
export function vcpuCount({ pid, kvmVcpus }: MachineProcess): number | null {
  if (kvmVcpus > 0) return kvmVcpus;
  return machineThreads(pid).named || null;
}

/** The state that the process shows. It does not show whether its manager has paused the machine. */
export function stateOf(process: HostProcess): DomainState {
  if (!isAlive(process)) return 'gone';
  const isFrozen = (Freezer.of(process)?.by() ?? 'nobody') !== 'nobody';
  return isFrozen || processState(process.pid) === 'T' ? 'paused' : 'running';
}

/** Why nothing can be done with another user's machine. */
export function notOurs({ pid, name, uid }: ForeignMachine): DomschedError {
  const message = `${name} is a virtual machine of another user (process ${pid}, uid ${uid}): run as root on the host itself`;
  return new DomschedError('host-unreachable', message, { domain: name, pid, uid });
}

/** @throws DomschedError `domain-not-found`; `host-unreachable` for another user's */
export function requireMachine(pid: number): MachineProcess {
  const machine = machineOf(pid);
  if (machine !== undefined) return machine;
  const foreign = foreignMachine(pid);
  if (foreign !== undefined) throw notOurs(foreign);
  throw new DomschedError(
    'domain-not-found',
    `process ${pid} runs no virtual machine that can be seen: it is no QEMU and has no KVM machine, or has ended; ` +
      'run as root on the host itself, and see domsched domains',
    { pid },
  );
}
