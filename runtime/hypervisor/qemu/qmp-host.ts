import { readdirSync } from 'node:fs';
import path from 'node:path';
import { DomschedError } from '../../error.ts';
import { formatConnect } from '../connect-value.ts';
import { OpenDomains } from '../open-domains.ts';
import { stoppedHolder } from '../standing.ts';
import type { DomainListing, Host } from '../types.ts';
import { marksFolder } from './pause-mark.ts';
import { listeningProcess } from './qemu-process.ts';
import { asRecord, QmpClient } from './qmp-client.ts';
import { type QemuSockets, type QmpDomain, queryName, queryVcpus } from './qmp-domain.ts';
import { stateOf } from './run-state.ts';

/**
 * Default places of sockets. Libvirt's are not among them, because each has libvirtd as its only client; its machines
 * are found by their processes.
 */
export const DEFAULT_PLACES: readonly string[] = ['/run/domsched'];

const GREETING_TIMEOUT_MS = 5_000;

/** The machines of QEMU behind one or more QMP sockets. */
export class QmpHost<D extends QmpDomain> implements Host {
  readonly hypervisor = 'qemu';
  readonly connection: string;
  readonly #machines: () => readonly QemuSockets[];
  readonly #attach: (sockets: QemuSockets, connection: string) => Promise<D>;
  readonly #open = new OpenDomains<D>();

  /** @param machines sockets that there are now */
  constructor(
    connection: string,
    machines: () => readonly QemuSockets[],
    attach: (sockets: QemuSockets, connection: string) => Promise<D>,
  ) {
    this.connection = connection;
    this.#machines = machines;
    this.#attach = attach;
  }

  async list(): Promise<readonly DomainListing[]> {
    return Promise.all(this.#machines().map((sockets) => this.#look(sockets)));
  }

  ids(): readonly string[] {
    return this.#machines().map(({ qmp }) => qmp);
  }

  async open(id: string): Promise<D> {
    // QEMU serves one client per socket, so a second connection would wait for our own first one.
    const attached = await this.#open.get(id);
    if (attached !== undefined) return attached;
    const sockets = this.#machines().find(({ qmp }) => qmp === id);
    if (sockets === undefined) {
      throw new DomschedError('domain-not-found', `there is no QMP socket ${id}`, { domain: id });
    }
    return this.#open.add(id, await this.#attach(sockets, connectionOf(sockets)));
  }

  close(): Promise<void> {
    return this.#open.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #look(sockets: QemuSockets): Promise<DomainListing> {
    const connection = connectionOf(sockets);
    const name = path.basename(sockets.qmp, '.sock');
    const identity = { id: sockets.qmp, name, hypervisor: 'qemu', connection } as const;
    let client: QmpClient | undefined;
    try {
      const attached = await this.#open.get(sockets.qmp);
      if (attached !== undefined) {
        const frames = attached.frames.regions().reduce((sum, { count }) => sum + count, 0);
        const { identity: known, vcpus } = attached;
        return { identity: known, state: await attached.state(), vcpus, memoryBytes: frames * 4096 };
      }
      client = await QmpClient.connect(sockets.qmp, { greetingTimeoutMs: GREETING_TIMEOUT_MS });
      const status = asRecord(await client.execute('query-status'))?.status;
      const memory = asRecord(await client.execute('query-memory-size-summary')) ?? {};
      return {
        identity: { ...identity, name: await queryName(client) },
        state: stateOf(status),
        vcpus: (await queryVcpus(client)).length,
        memoryBytes: Number(memory['base-memory'] ?? 0) + Number(memory['plugged-memory'] ?? 0),
      };
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      // QEMU serves one client: another process of ours may be it, and be stopped.
      const machine = listeningProcess(sockets.qmp, undefined);
      const standing = machine === undefined ? undefined : stoppedHolder(marksFolder(), 'qemu', machine);
      return { identity, error, ...(standing && { standing }) };
    } finally {
      client?.close();
    }
  }
}

/** The `--connect` value of one machine. */
export function connectionOf({ qmp, qtest, gdb }: QemuSockets): string {
  const unix = (file: string | undefined) => (file === undefined ? undefined : `unix:${file}`);
  return formatConnect('qemu', `unix:${qmp}`, { qtest: unix(qtest), gdb: unix(gdb) });
}

/** QMP sockets in the default places: `NAME.sock`, possibly with `NAME.qtest` beside it. */
export function findMachines(places: readonly string[] = DEFAULT_PLACES): QemuSockets[] {
  return places.flatMap((place) => {
    const names = namesOf(place);
    return names
      .filter((name) => name.endsWith('.sock'))
      .map((name) => {
        const qtest = name.replace(/\.sock$/, '.qtest');
        return {
          qmp: path.join(place, name),
          ...(names.includes(qtest) && { qtest: path.join(place, qtest) }),
        };
      });
  });
}

function namesOf(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch {
    // A place that does not exist holds no machines.
    return [];
  }
}
