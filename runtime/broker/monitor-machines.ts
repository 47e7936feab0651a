import { statSync } from 'node:fs';
import path from 'node:path';
import { DomschedError } from '../error.ts';
import { attachByMonitor, type QemuSockets, type QmpDomain } from '../hypervisor/qemu/qmp-domain.ts';
import { connectionOf, DEFAULT_PLACES, findMachines, QmpHost } from '../hypervisor/qemu/qmp-host.ts';
import type { DomainListing } from '../hypervisor/types.ts';
import { type Machines, type OpenedMachine, openFiles } from './machines.ts';

const WRITABLE_BY_OTHERS = 0o002;

/** Machines of QEMU by their QMP sockets: that of one, or those in the default places. */
export class MonitorMachines implements Machines {
  readonly #socket: string | undefined;
  readonly #host: QmpHost<QmpDomain>;

  /** @param socket the one that is meant */
  constructor(spec: string, socket?: string) {
    this.#socket = socket;
    this.#host = new QmpHost(spec, () => this.#sockets(), attachByMonitor);
  }

  ids(): readonly string[] {
    return this.#host.ids();
  }

  list(): Promise<readonly DomainListing[]> {
    return this.#host.list();
  }

  async open(id: string): Promise<OpenedMachine> {
    // What is not meant is neither looked at nor connected to.
    if (this.ids().includes(id)) expectRoots(id);
    const domain = await this.#host.open(id);
    try {
      return openedBy(domain);
    } catch (error) {
      await domain.close();
      throw error;
    }
  }

  owns({ connection, domain }: { connection: string; domain: string }): boolean {
    const isPlace = this.#socket === undefined ? isInDefaultPlace(domain) : domain === this.#socket;
    return isPlace && connection === connectionOf({ qmp: domain });
  }

  #sockets(): readonly QemuSockets[] {
    return this.#socket === undefined ? findMachines().map(({ qmp }) => ({ qmp })) : [{ qmp: this.#socket }];
  }
}

function openedBy(domain: QmpDomain): OpenedMachine {
  const { pid, started, name } = domain.identity;
  if (pid === undefined || started === undefined) {
    throw new DomschedError('host-unreachable', `${name}: its process is not known`, {});
  }
  const descriptors = openFiles({ pid, started, name });
  let resets = 0;
  domain.onEvent(({ type }) => {
    if (type === 'reset') resets += 1;
  });
  return {
    identity: { ...domain.identity, pid, started },
    descriptors,
    monitor: {
      threads: domain.threads,
      get resets() {
        return resets;
      },
      get ramVersion() {
        return domain.ramVersion;
      },
      get ram() {
        return domain.ram;
      },
      registersText: () => domain.registersText(),
    },
    place(where) {
      if (where === undefined) return domain;
      throw new DomschedError('refused', `${name}: its monitor tells where its RAM is`, { pid });
    },
    close: () => domain.close(),
  };
}

/** @throws DomschedError `refused` for a socket by which the reader could drive QEMU itself */
function expectRoots(socket: string): void {
  const mode = statSync(socket, { throwIfNoEntry: false })?.mode ?? 0;
  if ((mode & WRITABLE_BY_OTHERS) === 0) return;
  const message = `every user may connect to ${socket}, the reader of split = true too: let only its owner write to it, or set split = false`;
  throw new DomschedError('refused', message, { path: socket });
}

function isInDefaultPlace(socket: string): boolean {
  return DEFAULT_PLACES.includes(path.dirname(socket)) && socket.endsWith('.sock');
}
