import { DomschedError } from '../../error.ts';
import { onExit } from '../exit-guard.ts';
import type { GuestFrame } from '../frame.ts';
import { PauseCounter } from '../pause-counter.ts';
import type {
  Domain,
  DomainEvent,
  DomainIdentity,
  DomainScheduler,
  DomainState,
  FrameReader,
  FrameWriter,
  Notifier,
  Pausable,
  RegisterReader,
  VcpuRegisters,
} from '../types.ts';
import { attachRam } from './attach-ram.ts';
import { cgroupScheduler } from './cgroup-scheduler.ts';
import { GdbClient } from './gdb-client.ts';
import { isMarked } from './pause-mark.ts';
import { listeningProcess, processOfThread } from './qemu-process.ts';
import { asRecord, QmpClient, type QmpEvent } from './qmp-client.ts';
import { QtestClient } from './qtest-client.ts';
import { QemuRam, type RamSource } from './ram.ts';
import { parseRegisters } from './registers.ts';
import { watchdog } from './watchdog.ts';

/** Destination of message-signalled interrupts: bits 12..19 take the local APIC's id (Intel SDM vol. 3A, 11.11). */
const MSI_BASE = 0xfee0_0000;
const MAX_PHYSICAL_BITS = 52;

/** Where a machine's sockets are. */
export interface QemuSockets {
  readonly qmp: string;
  readonly qtest?: string;
  /** Of the gdbstub: kernel GS base, and interrupts where there is no qtest. */
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

/** A virtual machine of QEMU, by its QMP socket. */
export class QemuDomain implements Domain<GuestFrame> {
  readonly identity: DomainIdentity;
  readonly frames: FrameReader<GuestFrame>;
  readonly writeFrames: FrameWriter<GuestFrame>;
  readonly registers: RegisterReader;
  readonly pause: Pausable;
  readonly notify?: Notifier;
  readonly scheduler?: DomainScheduler;
  readonly vcpus: number;
  readonly #client: QmpClient;
  readonly #ram: QemuRam;
  readonly #pid: number;
  readonly #qtest: QtestClient | undefined;
  readonly #gdb: GdbClient | undefined;
  readonly #counter: PauseCounter;
  readonly #listeners = new Set<(event: DomainEvent) => void>();
  #sources: readonly RamSource[];
  #generation = 0;
  #running: boolean;
  /** We have sent `stop` or `cont`: the event that comes is ours. */
  #expecting: 'STOP' | 'RESUME' | undefined;
  #disarm: (() => void) | undefined;
  #closed = false;
  #gone: DomschedError | undefined;

  private constructor(parts: {
    identity: DomainIdentity;
    client: QmpClient;
    pid: number;
    sources: readonly RamSource[];
    physicalBits: number;
    vcpus: readonly Vcpu[];
    apicIds: ReadonlyMap<number, number>;
    qtest: QtestClient | undefined;
    gdb: GdbClient | undefined;
    running: boolean;
  }) {
    const { identity, client, qtest, gdb, apicIds } = parts;
    this.identity = identity;
    this.vcpus = parts.vcpus.length;
    this.#client = client;
    this.#pid = parts.pid;
    this.#qtest = qtest;
    this.#gdb = gdb;
    this.#sources = parts.sources;
    this.#running = parts.running;
    this.#ram = new QemuRam(identity.name, parts.physicalBits, parts.sources);
    this.frames = this.#ram;
    this.writeFrames = this.#ram;
    this.registers = { read: () => this.#readRegisters() };
    this.#counter = new PauseCounter({
      stop: () => this.#stop(),
      resume: () => this.#resume(),
      keepOnDeath: (keep) => watchdog.keep(client.path, keep),
      abandon: () => this.#disarm?.(),
    });
    this.pause = this.#counter;
    const scheduler = cgroupScheduler(parts.pid);
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
   * @throws DomschedError `host-unreachable`, `timeout` (also when someone else is attached), `protocol`
   */
  static async attach(sockets: QemuSockets, connection: string): Promise<QemuDomain> {
    const client = await QmpClient.connect(sockets.qmp);
    let qtest: QtestClient | undefined;
    let gdb: GdbClient | undefined;
    try {
      const name = await queryName(client);
      const vcpus = await queryVcpus(client);
      const pid = findProcess(client.path, vcpus);
      const apicIds = new Map<number, number>();
      for (const { index, qomPath } of vcpus) {
        const id = await client.execute('qom-get', { path: qomPath, property: 'apic-id' });
        if (typeof id === 'number') apicIds.set(index, id);
      }
      const running = asRecord(await client.execute('query-status'))?.running === true;
      const sources = await attachRam(client, pid);
      if (sockets.qtest !== undefined) qtest = await QtestClient.connect(sockets.qtest);
      if (sockets.gdb !== undefined) gdb = await connectGdb(client, sockets.gdb, running);
      return new QemuDomain({
        identity: { id: sockets.qmp, name, hypervisor: 'qemu', connection, pid },
        client,
        pid,
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

  get generation(): number {
    return this.#generation;
  }

  tick(): void {
    if (!this.#counter.held) this.#generation += 1;
  }

  async state(): Promise<DomainState> {
    if (this.#closed) return 'gone';
    try {
      return stateOf(asRecord(await this.#client.execute('query-status'))?.status);
    } catch (error) {
      if (error instanceof DomschedError && error.code === 'domain-gone') return 'gone';
      throw error;
    }
  }

  onEvent(listener: (event: DomainEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
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
      this.#listeners.clear();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #readRegisters(): Promise<readonly VcpuRegisters[]> {
    const registers = parseRegisters(await this.#client.human('info registers -a'));
    // Asking the stub would stop a machine that runs.
    if (this.#gdb === undefined || this.#running) return registers;
    const complete: VcpuRegisters[] = [];
    for (const vcpu of registers) {
      complete.push({ ...vcpu, kernelGsBase: await this.#gdb.kernelGsBase(vcpu.vcpu) });
    }
    return complete;
  }

  /** The stub's stores, made in a pause of their own. */
  #pausedStore(gdb: GdbClient): MsiStore {
    return {
      writel: async (address, value) => {
        await using _guard = await this.#counter.acquire();
        await gdb.writel(address, value);
      },
    };
  }

  async #stop(): Promise<{ foundPaused: boolean }> {
    if (this.#gone !== undefined) throw this.#gone;
    this.#generation += 1;
    if (!this.#running) {
      const status = asRecord(await this.#client.execute('query-status'))?.status;
      checkAtRest(this.identity.name, status);
      // A resume may have been on its way. A pause that a dead process of ours left is ours to end: QEMU serves one
      // client, so whoever made the mark is no longer attached.
      const left = status === 'paused' && isMarked(this.#client.path);
      if (status !== 'running' && !left) return { foundPaused: true };
    }
    const { path } = this.#client;
    watchdog.arm(path);
    const takeBack = onExit(() => this.#client.sendOnly('cont'));
    this.#disarm = () => {
      takeBack();
      watchdog.disarm(path);
      this.#disarm = undefined;
    };
    this.#expecting = 'STOP';
    try {
      const [, migration] = await Promise.all([
        this.#client.execute('stop'),
        this.#client.execute('query-migrate'),
      ]);
      checkNoMigration(this.identity.name, asRecord(migration)?.status);
    } catch (error) {
      // It may have stopped and only the answer is late: it must not stay so.
      this.#expecting = 'RESUME';
      this.#client.sendOnly('cont');
      this.#disarm?.();
      throw error;
    }
    this.#expecting = undefined;
    this.#running = false;
    this.#generation += 1;
    return { foundPaused: false };
  }

  async #resume(): Promise<void> {
    this.#expecting = 'RESUME';
    this.#generation += 1;
    try {
      await this.#client.execute('cont');
      this.#running = true;
    } catch (error) {
      // A machine that has ended needs no resume; anything else is for the caller to know.
      if (!(error instanceof DomschedError && error.code === 'domain-gone')) throw error;
    } finally {
      this.#expecting = undefined;
      this.#disarm?.();
    }
  }

  #onEvent({ event }: QmpEvent): void {
    if (event === 'STOP') {
      this.#running = false;
      this.#emit({ type: 'paused', byUs: this.#expecting === 'STOP' });
    } else if (event === 'RESUME') {
      const byUs = this.#expecting === 'RESUME';
      this.#running = true;
      this.#generation += 1;
      if (!byUs) {
        this.#counter.dissolve();
        this.#disarm?.();
      }
      this.#emit({ type: 'resumed', byUs });
    } else if (event === 'RESET') {
      this.#generation += 1;
      this.#counter.invalidate();
      this.#emit({ type: 'reset' });
      this.#refreshRam();
    } else if (event === 'ACPI_DEVICE_OST' || event === 'DEVICE_DELETED') {
      this.#refreshRam();
    }
  }

  /** The firmware moves its shadows, memory comes and goes: look again where RAM is. */
  #refreshRam(): void {
    attachRam(this.#client, this.#pid, this.#sources).then(
      (sources) => {
        if (this.#closed) return;
        this.#sources = sources;
        this.#ram.replace(sources);
        this.#generation += 1;
      },
      (error: unknown) => {
        if (error instanceof DomschedError) this.#ram.fail(error);
        else throw error;
      },
    );
  }

  #onEnd(error: DomschedError): void {
    this.#gone = error;
    this.#generation += 1;
    this.#running = false;
    this.#ram.fail(error);
    this.#counter.dissolve();
    this.#disarm?.();
    this.#emit({ type: 'gone', reason: error.message });
  }

  #emit(event: DomainEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }
}

/** States of `query-migrate` in which memory is on its way: what we write could be left behind. */
const MIGRATING = new Set([
  ...['setup', 'active', 'device', 'pre-switchover', 'wait-unplug', 'cancelling'],
  ...['postcopy-active', 'postcopy-paused', 'postcopy-recover', 'colo'],
]);
/** Run states that are a step of something else. */
const IN_TRANSIT = new Set([
  'inmigrate',
  'finish-migrate',
  'save-vm',
  'restore-vm',
  'prelaunch',
  'preconfig',
]);

/** @throws DomschedError `refused` while the machine is migrated */
function checkNoMigration(domain: string, status: unknown): void {
  if (typeof status !== 'string' || !MIGRATING.has(status)) return;
  throw new DomschedError('refused', `${domain} is being migrated; try again when that is done`, {
    domain,
    status,
  });
}

/** @throws DomschedError `refused` for a machine between two states, `domain-gone` for one that runs elsewhere now */
function checkAtRest(domain: string, status: unknown): void {
  if (status === 'postmigrate') {
    throw new DomschedError('domain-gone', `${domain} was migrated away; look for it on its new host`, {
      domain,
    });
  }
  if (typeof status !== 'string' || !IN_TRANSIT.has(status)) return;
  const message = `${domain} is in state ${status}; try again when it runs or is paused`;
  throw new DomschedError('refused', message, { domain, status });
}

/** Domain state for one of QEMU's run states. */
export function stateOf(status: unknown): DomainState {
  if (status === 'running') return 'running';
  if (status === 'shutdown') return 'shutdown';
  if (status === 'postmigrate') return 'gone';
  if (status === 'guest-panicked' || status === 'internal-error' || status === 'io-error') return 'crashed';
  return 'paused';
}

/** @throws DomschedError `protocol` */
export async function queryName(client: QmpClient): Promise<string> {
  const name = asRecord(await client.execute('query-name'))?.name;
  if (typeof name === 'string' && name.length > 0) return name;
  // Without -name: the socket's own name is at least one that its owner chose.
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

/** Connects to the stub, which stops the machine, and lets it go on. */
async function connectGdb(client: QmpClient, path: string, running: boolean): Promise<GdbClient> {
  if (running) watchdog.arm(client.path);
  try {
    return await GdbClient.connect(path);
  } finally {
    if (running) {
      await client.execute('cont');
      watchdog.disarm(client.path);
    }
  }
}

function findProcess(path: string, vcpus: readonly Vcpu[]): number {
  const hints = vcpus.map(({ thread }) => processOfThread(thread)).filter((pid) => pid !== undefined);
  const pid = listeningProcess(path, [...new Set(hints)]);
  if (pid !== undefined) return pid;
  throw new DomschedError(
    'host-unreachable',
    `cannot tell which process serves ${path}; run as root or as the user that runs QEMU, in the same PID namespace`,
    { path },
  );
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
