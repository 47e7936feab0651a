import { DomschedError } from '../../error.ts';
import type { HostProcess } from '../../host-process.ts';
import type { Notifier, RegisterReader, VcpuRegisters } from '../types.ts';
import { GdbClient } from './gdb-client.ts';
import { QmpClient } from './qmp-client.ts';
import { openMachine, type QemuSockets, QmpDomain, type QmpMachine } from './qmp-domain.ts';
import { QtestClient } from './qtest-client.ts';
import { parseRegisters } from './registers.ts';
import { watchdog } from './watchdog.ts';

/** Address of message-signalled interrupts; bits 12..19 take the local APIC's id (Intel SDM vol. 3A, 11.11). */
const MSI_BASE = 0xfee0_0000;

/** Stores a word as a device does. */
interface MsiStore {
  writel(address: number, value: number): Promise<void>;
}

/** Sockets beside the monitor's. */
interface MoreSockets {
  readonly qtest: QtestClient | undefined;
  readonly gdb: GdbClient | undefined;
}

/** A virtual machine of QEMU with all that its sockets can do. */
export class QemuDomain extends QmpDomain {
  readonly registers: RegisterReader;
  readonly notify?: Notifier;
  readonly #qtest: QtestClient | undefined;
  readonly #gdb: GdbClient | undefined;

  private constructor(
    machine: QmpMachine,
    apicIds: ReadonlyMap<number, number>,
    { qtest, gdb }: MoreSockets,
  ) {
    super(machine);
    this.#qtest = qtest;
    this.#gdb = gdb;
    this.registers = { read: () => this.#readRegisters() };
    const store = qtest !== undefined ? qtest : gdb !== undefined ? this.#pausedStore(gdb) : undefined;
    if (store !== undefined) {
      const { name } = machine.identity;
      this.notify = {
        kind: 'msi',
        inject: (vcpu, vector) => injectMsi(store, name, apicIds, vcpu, vector),
      };
    }
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
      const machine = await openMachine(client, connection);
      const { process, vcpus, running } = machine;
      const apicIds = new Map<number, number>();
      for (const { index, qomPath } of vcpus) {
        const id = await client.execute('qom-get', { path: qomPath, property: 'apic-id' });
        if (typeof id === 'number') apicIds.set(index, id);
      }
      if (sockets.qtest !== undefined) qtest = await QtestClient.connect(sockets.qtest);
      if (sockets.gdb !== undefined) {
        const threads = vcpus.map(({ thread }) => thread);
        gdb = await connectGdb(client, process, threads, sockets.gdb, running);
      }
      return new QemuDomain(machine, apicIds, { qtest, gdb });
    } catch (error) {
      qtest?.close();
      gdb?.close();
      client.close();
      throw error;
    }
  }

  override async close(): Promise<void> {
    try {
      await super.close();
    } finally {
      this.#qtest?.close();
      this.#gdb?.close();
    }
  }

  async #readRegisters(): Promise<readonly VcpuRegisters[]> {
    const registers = parseRegisters(await this.registersText());
    // Asking the stub would stop a running machine.
    if (this.#gdb === undefined || this.isRunning) return registers;
    const complete: VcpuRegisters[] = [];
    for (const vcpu of registers) {
      complete.push({ ...vcpu, kernelGsBase: await this.#gdb.kernelGsBase(vcpu.vcpu) });
    }
    return complete;
  }

  /** Stores through the stub, each in a pause of its own. */
  #pausedStore(gdb: GdbClient): MsiStore {
    return {
      writel: async (address, value) => {
        await using _guard = await this.pause.acquire();
        await gdb.writel(address, value);
      },
    };
  }
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
