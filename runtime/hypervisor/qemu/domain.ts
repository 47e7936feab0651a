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
  Notifier,
  Pausable,
  PauseProof,
  PauseUse,
  RegisterReader,
  StandingPause,
  VcpuRegisters,
} from '../types.ts';
import { attachRam } from './attach-ram.ts';
import { cgroupScheduler } from './cgroup-scheduler.ts';
import { GdbClient } from './gdb-client.ts';
import { leftPausedBy, markLeft, marksFolder } from './pause-mark.ts';
import { servingProcess, threadsByOwnNumber } from './qemu-process.ts';
import { asRecord, QmpClient, type QmpEvent } from './qmp-client.ts';
import { QtestClient } from './qtest-client.ts';
import { QemuRam, type RamSource } from './ram.ts';
import { parseRegisters } from './registers.ts';
import { checkAtRest, checkNotMoving, checkPaused, isStoppable, stateOf } from './run-state.ts';
import { watchdog } from './watchdog.ts';

/** Address of message-signalled interrupts; bits 12..19 take the local APIC's id (Intel SDM vol. 3A, 11.11). */
const MSI_BASE = 0xfee0_0000;
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

/** Stores a word as a device does. */
interface MsiStore {
  writel(address: number, value: number): Promise<void>;
}

interface Vcpu {
  readonly index: number;
  readonly thread: number;
  readonly qomPath: string;
}

/** A virtual machine of QEMU, reached through its QMP socket. */
export class QemuDomain extends LiveDomain implements Domain<GuestFrame> {
  readonly identity: DomainIdentity;
  readonly frames: FrameReader<GuestFrame>;
  readonly writeFrames: FrameWriter<GuestFrame>;
  readonly registers: RegisterReader;
  readonly pause: Pausable;
  readonly notify?: Notifier;
  readonly scheduler?: DomainScheduler;
  readonly hostClock: ThreadTimes;
  readonly vcpus: number;
  readonly #client: QmpClient;
  readonly #ram: QemuRam;
  readonly #process: HostProcess;
  /** Threads of its vCPUs. */
  readonly #threads: readonly number[];
  readonly #qtest: QtestClient | undefined;
  readonly #gdb: GdbClient | undefined;
  readonly #counter: PauseCounter;
  #sources: readonly RamSource[];
  /** How often we heard that it went on. */
  #resumes = 0;
  #running: boolean;
  /** Set while we have sent `stop` or `cont`: the next such event is ours. */
  #expecting: 'STOP' | 'RESUME' | undefined;
  #disarm: (() => void) | undefined;
  #closed = false;
  #gone: DomschedError | undefined;

  private constructor(parts: {
    identity: DomainIdentity;
    client: QmpClient;
    process: HostProcess;
    sources: readonly RamSource[];
    physicalBits: number;
    vcpus: readonly Vcpu[];
    apicIds: ReadonlyMap<number, number>;
    qtest: QtestClient | undefined;
    gdb: GdbClient | undefined;
    running: boolean;
  }) {
    super();
    const { identity, client, qtest, gdb, apicIds } = parts;
    this.identity = identity;
    this.vcpus = parts.vcpus.length;
    this.#client = client;
    this.#process = parts.process;
    this.#threads = parts.vcpus.map(({ thread }) => thread);
    const { pid } = parts.process;
    this.hostClock = new ThreadTimes(pid, () => threadsByOwnNumber(pid, this.#threads));
    this.#qtest = qtest;
    this.#gdb = gdb;
    this.#sources = parts.sources;
    this.#running = parts.running;
    this.#ram = new QemuRam(identity.name, parts.physicalBits, parts.sources);
    this.frames = this.#ram;
    this.writeFrames = this.#ram;
    this.registers = { read: () => this.#readRegisters() };
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
    const scheduler = cgroupScheduler(parts.process.pid);
    if (scheduler !== undefined) this.scheduler = scheduler;
    const store = qtest !== undefined ? qtest : gdb !== undefined ? this.#pausedStore(gdb) : undefined;
    if (store !== undefined) {
      this.notify = {
        kind: 'msi',
        inject: (vcpu, vector) => injectMsi(store, identity.name, apicIds, vcpu, vector),
      };
    }
    client.onEvent((event) => this.#onEvent(event));
    client.onEnd((error) => this.#onEnd(error));
  }

  /**
   * Attaches to the machine behind a QMP socket.
   * @throws DomschedError `host-unreachable`, `timeout` (also when somebody else is attached), `protocol`
   */
  static async attach(sockets: QemuSockets, connection: string): Promise<QemuDomain> {
    const client = await QmpClient.connect(sockets.qmp);
    let qtest: QtestClient | undefined;
    let gdb: GdbClient | undefined;
    try {
      const name = await queryName(client);
      const vcpus = await queryVcpus(client);
      const process = findProcess(client, vcpus);
      const { pid } = process;
      const apicIds = new Map<number, number>();
      for (const { index, qomPath } of vcpus) {
        const id = await client.execute('qom-get', { path: qomPath, property: 'apic-id' });
        if (typeof id === 'number') apicIds.set(index, id);
      }
      const running = asRecord(await client.execute('query-status'))?.running === true;
      const sources = await attachRam(client, pid);
      if (sockets.qtest !== undefined) qtest = await QtestClient.connect(sockets.qtest);
      if (sockets.gdb !== undefined) {
        const threads = vcpus.map(({ thread }) => thread);
        gdb = await connectGdb(client, process, threads, sockets.gdb, running);
      }
      return new QemuDomain({
        identity: { id: sockets.qmp, name, hypervisor: 'qemu', connection, ...process },
        client,
        process,
        sources,
        physicalBits: await physicalBits(client, vcpus[0]!),
        vcpus,
        apicIds,
        qtest,
        gdb,
        running,
      });
    } catch (error) {
      qtest?.close();
      gdb?.close();
      client.close();
      throw error;
    }
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
      this.#qtest?.close();
      this.#gdb?.close();
      this.#client.close();
      this.#ram.close();
      this.hostClock.close();
      this.forgetListeners();
    }
  }

  async #readRegisters(): Promise<readonly VcpuRegisters[]> {
    let registers = parseRegisters(await this.#client.human('info registers -a'));
    // Asking the stub would stop a running machine.
    if (this.#gdb !== undefined && !this.#running) {
      const complete: VcpuRegisters[] = [];
      for (const vcpu of registers) {
        complete.push({ ...vcpu, kernelGsBase: await this.#gdb.kernelGsBase(vcpu.vcpu) });
      }
      registers = complete;
    }
    watchdog.stands(this.#client.path);
    return registers;
  }

  /** Stores through the stub, each in a pause of its own. */
  #pausedStore(gdb: GdbClient): MsiStore {
    return {
      writel: async (address, value) => {
        await using _guard = await this.#counter.acquire();
        await gdb.writel(address, value);
      },
    };
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

/** Connects to the stub, which stops the machine, and then resumes the machine. */
async function connectGdb(
  client: QmpClient,
  machine: HostProcess,
  vcpus: readonly number[],
  path: string,
  running: boolean,
): Promise<GdbClient> {
  if (running) watchdog.arm(client, machine, vcpus);
  try {
    return await GdbClient.connect(path);
  } finally {
    if (running) {
      await client.execute('cont');
      watchdog.disarm(client.path);
    }
  }
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

async function injectMsi(
  store: MsiStore,
  domain: string,
  apicIds: ReadonlyMap<number, number>,
  vcpu: number,
  vector: number,
): Promise<void> {
  const apicId = apicIds.get(vcpu);
  if (apicId === undefined || apicId > 0xff || !Number.isInteger(vector) || vector < 32 || vector > 255) {
    throw new DomschedError('usage', `${domain}: no interrupt ${vector} can be sent to vCPU ${vcpu}`, {
      domain,
      vcpu,
      vector,
    });
  }
  await store.writel(MSI_BASE + apicId * 0x1000, vector);
}
