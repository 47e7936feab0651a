import { DomschedError } from '../../error.ts';
import { type HostProcess, hostProcess, isAlive } from '../../host-process.ts';
import { onExit } from '../exit-guard.ts';
import type { GuestFrame } from '../frame.ts';
import { LiveDomain, stateUnlessGone } from '../live-domain.ts';
import { PauseCounter } from '../pause-counter.ts';
import { stoppedHolder } from '../standing.ts';
import { ThreadTimes } from '../thread-times.ts';
import type {
  Domain,
  DomainIdentity,
  DomainScheduler,
  DomainState,
  FrameReader,
  FrameWriter,
  Pausable,
  PauseProof,
  PauseUse,
  StandingPause,
} from '../types.ts';
import { attachRam } from './attach-ram.ts';
import { cgroupScheduler } from './cgroup-scheduler.ts';
import { leftPausedBy, markLeft, marksFolder } from './pause-mark.ts';
import { servingProcess, threadsByOwnNumber } from './qemu-process.ts';
import { asRecord, QmpClient, type QmpEvent } from './qmp-client.ts';
import { QemuRam, type RamSegment, type RamSource } from './ram.ts';
import { checkAtRest, checkNotMoving, checkPaused, isStoppable, stateOf } from './run-state.ts';
import { watchdog } from './watchdog.ts';

const MAX_PHYSICAL_BITS = 52;
/** How often to stop a machine again that somebody else resumes at the same moment. */
const STOP_ATTEMPTS = 3;

/** Sockets of a machine. */
export interface QemuSockets {
  readonly qmp: string;
  readonly qtest?: string;
  /** The gdbstub, for the kernel GS base, and for interrupts without qtest. */
  readonly gdb?: string;
}

/** A CPU of the guest, by QEMU's word. */
export interface Vcpu {
  readonly index: number;
  readonly thread: number;
  readonly qomPath: string;
}

/** What a machine is made of when it was attached to. */
export interface QmpMachine {
  readonly identity: DomainIdentity;
  readonly client: QmpClient;
  readonly process: HostProcess;
  readonly sources: readonly RamSource[];
  readonly physicalBits: number;
  readonly vcpus: readonly Vcpu[];
  readonly running: boolean;
}

/**
 * A virtual machine of QEMU, reached through its QMP socket: its memory and its pause. Of what the guest itself has chosen,
 * nothing is read here but bytes of its memory.
 */
export class QmpDomain extends LiveDomain implements Domain<GuestFrame> {
  readonly identity: DomainIdentity;
  readonly frames: FrameReader<GuestFrame>;
  readonly writeFrames: FrameWriter<GuestFrame>;
  readonly pause: Pausable;
  readonly scheduler?: DomainScheduler;
  readonly hostClock: ThreadTimes;
  readonly vcpus: number;
  readonly #client: QmpClient;
  readonly #ram: QemuRam;
  readonly #process: HostProcess;
  /** Threads of its vCPUs. */
  readonly #threads: readonly number[];
  readonly #counter: PauseCounter;
  #sources: readonly RamSource[];
  /** See {@link ramVersion}. */
  #looks = 0;
  /** How often we heard that it went on. */
  #resumes = 0;
  #running: boolean;
  /** Set while we have sent `stop` or `cont`: the next such event is ours. */
  #expecting: 'STOP' | 'RESUME' | undefined;
  #disarm: (() => void) | undefined;
  #closed = false;
  #gone: DomschedError | undefined;

  constructor(machine: QmpMachine) {
    super();
    const { identity, client, process, sources } = machine;
    this.identity = identity;
    this.vcpus = machine.vcpus.length;
    this.#client = client;
    this.#process = process;
    this.#threads = machine.vcpus.map(({ thread }) => thread);
    const { pid } = process;
    this.hostClock = new ThreadTimes(pid, () => threadsByOwnNumber(pid, this.#threads));
    this.#sources = sources;
    this.#running = machine.running;
    this.#ram = new QemuRam(identity.name, machine.physicalBits, sources);
    this.frames = this.#ram;
    this.writeFrames = this.#ram;
    this.#counter = new PauseCounter({
      way: 'its monitor (QMP)',
      asks: true,
      stop: (use) => this.#stop(use),
      prove: () => this.#prove(),
      // QEMU sends a RESUME before the first vCPU goes on, so if it is not in our socket, it has not happened.
      isQuiet: () => client.isQuiet,
      resume: () => this.#resume(),
      keepOnDeath: (keep) => watchdog.keep(client.path, keep),
      abandon: () => this.#disarm?.(),
    });
    this.pause = this.#counter;
    const scheduler = cgroupScheduler(pid);
    if (scheduler !== undefined) this.scheduler = scheduler;
    client.onEvent((event) => this.#onEvent(event));
    client.onEnd((error) => this.#onEnd(error));
  }

  /** Threads that run its CPUs. */
  get threads(): readonly number[] {
    return this.#threads;
  }

  /** Changes whenever {@link ram} may have. */
  get ramVersion(): number {
    return this.#looks;
  }

  /** Where its RAM is in its process, as of now. */
  get ram(): readonly RamSegment[] {
    return this.#sources.flatMap(({ inProcess }) => inProcess ?? []);
  }

  async state(): Promise<DomainState> {
    if (this.#closed) return 'gone';
    return stateUnlessGone(async () => stateOf(asRecord(await this.#client.execute('query-status'))?.status));
  }

  standing(): StandingPause | undefined {
    const { pid } = this.#process;
    const stopped = stoppedHolder(marksFolder(), 'qemu', pid);
    if (stopped !== undefined || this.#running) return stopped;
    const writer = leftPausedBy(this.#process, this.#threads);
    return writer && { by: 'dead', pid: writer.pid };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.#counter.releaseAll();
    } finally {
      this.#closed = true;
      this.#disarm?.();
      this.#client.close();
      this.#ram.close();
      this.hostClock.close();
      this.forgetListeners();
    }
  }

  /** The registers of all CPUs as QEMU prints them. @throws DomschedError `domain-gone`, `timeout`, `protocol` */
  async registersText(): Promise<string> {
    const text = await this.#client.human('info registers -a');
    watchdog.stands(this.#client.path);
    return text;
  }

  /** Whether it runs, as far as was heard. */
  protected get isRunning(): boolean {
    return this.#running;
  }

  async #stop(use: PauseUse): Promise<{ foundPaused: boolean }> {
    if (this.#gone !== undefined) throw this.#gone;
    this.#expecting = undefined;
    this.mayHaveRun();
    /** The dead process of ours that left the present pause. */
    let left: HostProcess | undefined;
    if (!this.#running) {
      const resumes = this.#resumes;
      const { status } = await this.#ask();
      checkAtRest(this.identity.name, status);
      // A resume may have been under way. A pause left by a dead process of ours is ours to end, but not by who only
      // looks: an edit may be half written.
      if (use === 'edit' && status === 'paused') left = leftPausedBy(this.#process, this.#threads);
      const stands = status !== 'running' && resumes === this.#resumes;
      if (stands && left === undefined) return { foundPaused: true };
    }
    const { path } = this.#client;
    // What a dead process left half written is still so.
    watchdog.arm(this.#client, this.#process, this.#threads, left ? 'keep' : 'resume');
    const takeBack = onExit(() => {
      if (!watchdog.keeps(path)) this.#client.sendOnly('cont');
    });
    this.#disarm = () => {
      takeBack();
      watchdog.disarm(path);
      this.#disarm = undefined;
    };
    try {
      const foundPaused = (await this.#stopFirmly()) === 'theirs' && !left;
      if (foundPaused) this.#disarm?.();
      else watchdog.stands(path);
      this.#running = false;
      this.mayHaveRun();
      return { foundPaused };
    } catch (error) {
      this.#disarm?.();
      if (left !== undefined && !this.#running) markLeft(this.#process, this.#threads, left);
      throw error;
    }
  }

  /** @throws DomschedError `edit-conflict` when somebody else keeps resuming it, and as {@link #stopOnce} */
  async #stopFirmly(): Promise<'ours' | 'theirs'> {
    for (let attempt = 0; attempt < STOP_ATTEMPTS; attempt++) {
      const found = await this.#stopOnce();
      if (found !== 'resumed') return found;
      // Our stop may still have come last, and nobody must take the pause for somebody else's.
      this.#expecting = 'RESUME';
      await this.#client.execute('cont');
    }
    const { name } = this.identity;
    const message = `${name}: another client of QEMU resumes it whenever it is paused; nothing was changed`;
    throw new DomschedError('edit-conflict', message, { domain: name });
  }

  /**
   * Stops the machine and asks, in one batch, for its state before and after. QEMU answers in order, and sends events
   * ahead of answers to later commands. If this fails, the machine is as it was before.
   * @returns whose pause it is; `resumed` when somebody else resumed it meanwhile
   * @throws DomschedError `refused` when it stands for another reason, or its memory is being moved
   */
  async #stopOnce(): Promise<'ours' | 'theirs' | 'resumed'> {
    this.#expecting = 'STOP';
    const [asked, stop, after] = await Promise.allSettled([
      this.#client.executeAt('query-status', (answer) => {
        return { status: asRecord(answer)?.status, resumes: this.#resumes };
      }),
      this.#client.execute('stop'),
      this.#ask(),
    ]);
    this.#expecting = undefined;
    const before = asked.status === 'fulfilled' ? asked.value.status : undefined;
    const resumed = asked.status === 'fulfilled' && asked.value.resumes !== this.#resumes;
    try {
      if (asked.status === 'rejected') throw asked.reason;
      if (stop.status === 'rejected') throw stop.reason;
      if (after.status === 'rejected') throw after.reason;
      const { status } = after.value;
      if (status === 'running' || resumed) return 'resumed';
      // A QEMU since 9.0 turns S3 into a pause.
      if (before !== 'running') checkPaused(this.identity.name, before);
      checkPaused(this.identity.name, status);
      return before === 'paused' ? 'theirs' : 'ours';
    } catch (error) {
      if (resumed || isStoppable(before)) {
        // It may have stopped with only the answer late, and must not stay stopped.
        this.#expecting = 'RESUME';
        this.#client.sendOnly('cont');
      }
      throw error;
    }
  }

  async #prove(): Promise<PauseProof> {
    const { name } = this.identity;
    if (this.#gone !== undefined) throw this.#lost(this.#gone);
    const { status, answers } = await this.#ask().catch((error: unknown) => {
      throw this.#lost(error);
    });
    checkPaused(name, status);
    if (!isAlive(this.#process))
      throw new DomschedError('domain-gone', `${name} has ended`, { domain: name });
    return { generation: this.generation, answers };
  }

  /** Keeps the error `domain-gone` only if the process has ended; a broken connection alone does not mean that. */
  #lost(error: unknown): unknown {
    if (!(error instanceof DomschedError) || error.code !== 'domain-gone') return error;
    if (this.#closed || !isAlive(this.#process)) return error;
    const message = `${this.identity.name}: the connection to QEMU broke, and its process still is`;
    return new DomschedError('host-unreachable', message, { domain: this.identity.name }, { cause: error });
  }

  /**
   * State of the machine, asked last to be fresh, and text that differs between any two migrations or saves.
   * @throws DomschedError `refused` while its memory is being moved
   */
  async #ask(): Promise<{ status: unknown; answers: string }> {
    const [jobs, migration, status] = await Promise.all([
      this.#client.execute('query-jobs'),
      this.#client.execute('query-migrate'),
      this.#client.execute('query-status'),
    ]);
    const moves = asRecord(migration) ?? {};
    checkNotMoving(this.identity.name, moves.status, jobs);
    // Obstacles to a migration are not a migration, and may change.
    const { blocked, 'blocked-reasons': reasons, ...past } = moves;
    return { status: asRecord(status)?.status, answers: JSON.stringify([past, status]) };
  }

  async #resume(): Promise<void> {
    this.#expecting = 'RESUME';
    this.mayHaveRun();
    try {
      await this.#client.execute('cont');
      this.#running = true;
    } catch (error) {
      // An ended machine needs no resume; the caller must know about any other error.
      if (!(error instanceof DomschedError && error.code === 'domain-gone')) throw error;
    } finally {
      this.#expecting = undefined;
      this.#disarm?.();
    }
  }

  #onEvent({ event }: QmpEvent): void {
    if (event === 'STOP') {
      this.#running = false;
      this.emit({ type: 'paused', byUs: this.#expecting === 'STOP' });
    } else if (event === 'RESUME' || event === 'WAKEUP') {
      this.#onResume(event === 'RESUME' && this.#expecting === 'RESUME');
    } else if (event === 'SUSPEND') {
      // S3: the machine stands still without a STOP, and will go on without a RESUME.
      this.mayHaveRun();
      this.#running = false;
      this.#counter.invalidate();
      this.emit({ type: 'paused', byUs: false });
    } else if (event === 'RESET') {
      this.mayHaveRun();
      this.#counter.invalidate();
      this.emit({ type: 'reset' });
      this.#refreshRam();
    } else if (event === 'ACPI_DEVICE_OST' || event === 'DEVICE_DELETED') {
      this.#refreshRam();
    }
  }

  #onResume(byUs: boolean): void {
    this.#running = true;
    this.mayHaveRun();
    this.#resumes += 1;
    if (!byUs) {
      this.#counter.dissolve();
      // While we are stopping it, the watchdog must stay armed.
      if (this.#expecting !== 'STOP') this.#disarm?.();
    }
    this.emit({ type: 'resumed', byUs });
  }

  /** Looks again for RAM, because firmware moves its shadows, and memory may be plugged. */
  #refreshRam(): void {
    attachRam(this.#client, this.#process.pid, this.#sources).then(
      (sources) => {
        if (this.#closed) return;
        this.#sources = sources;
        this.#looks += 1;
        this.#ram.replace(sources);
        this.mayHaveRun();
      },
      (error: unknown) => {
        if (error instanceof DomschedError) this.#ram.fail(error);
        else throw error;
      },
    );
  }

  #onEnd(error: DomschedError): void {
    this.#gone = error;
    this.mayHaveRun();
    this.#running = false;
    this.#ram.fail(error);
    this.#counter.dissolve();
    this.#disarm?.();
    this.emit({ type: 'gone', reason: error.message });
  }
}

/**
 * Attaches to the machine behind a QMP socket.
 * @throws DomschedError `host-unreachable`, `timeout` (also when somebody else is attached), `protocol`
 */
export async function attachByMonitor({ qmp }: QemuSockets, connection: string): Promise<QmpDomain> {
  const client = await QmpClient.connect(qmp);
  try {
    return new QmpDomain(await openMachine(client, connection));
  } catch (error) {
    client.close();
    throw error;
  }
}

/**
 * Asks what the machine behind a QMP socket is made of.
 * @throws DomschedError `host-unreachable`, `timeout`, `protocol`
 */
export async function openMachine(client: QmpClient, connection: string): Promise<QmpMachine> {
  const name = await queryName(client);
  const vcpus = await queryVcpus(client);
  const process = findProcess(client, vcpus);
  const running = asRecord(await client.execute('query-status'))?.running === true;
  const sources = await attachRam(client, process.pid);
  return {
    identity: { id: client.path, name, hypervisor: 'qemu', connection, ...process },
    client,
    process,
    sources,
    physicalBits: await physicalBits(client, vcpus[0]!),
    vcpus,
    running,
  };
}

/** @throws DomschedError `protocol` */
export async function queryName(client: QmpClient): Promise<string> {
  const name = asRecord(await client.execute('query-name'))?.name;
  if (typeof name === 'string' && name.length > 0) return name;
  // Without -name we use the socket's name, which at least its owner chose.
  return client.path.slice(client.path.lastIndexOf('/') + 1).replace(/\.sock$/, '');
}

/** @throws DomschedError `protocol` */
export async function queryVcpus(client: QmpClient): Promise<Vcpu[]> {
  const answer = await client.execute('query-cpus-fast');
  const vcpus: Vcpu[] = [];
  for (const entry of Array.isArray(answer) ? answer : []) {
    const cpu = asRecord(entry) ?? {};
    const { 'cpu-index': index, 'thread-id': thread, 'qom-path': qomPath } = cpu;
    if (typeof index === 'number' && typeof thread === 'number' && typeof qomPath === 'string') {
      vcpus.push({ index, thread, qomPath });
    }
  }
  if (vcpus.length > 0) return vcpus.sort((a, b) => a.index - b.index);
  throw new DomschedError('protocol', `QMP ${client.path}: query-cpus-fast lists no vCPU`, {
    path: client.path,
  });
}

/** @throws DomschedError `host-unreachable` */
function findProcess({ path, peer }: QmpClient, vcpus: readonly Vcpu[]): HostProcess {
  const threads = vcpus.map(({ thread }) => thread);
  const pid = servingProcess(path, peer, threads);
  const found = pid === undefined ? undefined : hostProcess(pid);
  // Checked again: the process with this start time serves the socket, and not a later one with its id.
  if (found !== undefined && servingProcess(path, peer, threads) === found.pid) return found;
  const advice =
    peer?.pid === 0
      ? 'it is outside of the container (the PID namespace) of domsched: run domsched on the host'
      : 'run as root or as the user that runs QEMU, in the same PID namespace';
  throw new DomschedError('host-unreachable', `cannot tell which process serves ${path}; ${advice}`, {
    path,
  });
}

async function physicalBits(client: QmpClient, vcpu: Vcpu): Promise<number> {
  const bits = await client.execute('qom-get', { path: vcpu.qomPath, property: 'phys-bits' });
  return typeof bits === 'number' && bits >= 32 && bits <= MAX_PHYSICAL_BITS ? bits : MAX_PHYSICAL_BITS;
}
