import { DomschedError } from '../error.ts';
import { OpenDomains } from '../hypervisor/open-domains.ts';
import type { Domain, DomainListing, Host } from '../hypervisor/types.ts';
import { attachRam } from '../hypervisor/vmm/attach-ram.ts';
import { identityOf } from '../hypervisor/vmm/domain.ts';
import type { BrokerClient } from './client.ts';
import { BrokeredDomain } from './domain.ts';
import { HandedView } from './view.ts';

/** The virtual machines of this host as the broker finds them by their processes: one of them, or all. */
export class BrokeredHost implements Host {
  readonly hypervisor = 'qemu';
  readonly connection: string;
  readonly #client: BrokerClient;
  readonly #pid: number | undefined;
  readonly #open = new OpenDomains<BrokeredDomain>();
  #ids: readonly string[] = [];
  #asking: Promise<unknown> | undefined;

  /** @param pid the one machine that is meant; all when left out */
  constructor(client: BrokerClient, connection: string, pid?: number) {
    this.#client = client;
    this.connection = connection;
    this.#pid = pid;
  }

  async list(): Promise<readonly DomainListing[]> {
    const machines = await this.#client.ask({ op: 'list' });
    const meant = machines.filter(({ pid }) => this.#pid === undefined || this.#pid === pid);
    this.#ids = meant.map(({ pid }) => `pid:${pid}`);
    return meant.map((machine) => {
      const { state, vcpus, memoryBytes } = machine;
      return { identity: identityOf(machine), state, vcpus, memoryBytes };
    });
  }

  /** As of the last time that it was asked; the broker is asked again meanwhile. */
  ids(): readonly string[] {
    this.#asking ??= this.list()
      .catch(() => undefined)
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#ids;
  }

  async open(id: string): Promise<Domain> {
    const before = await this.#open.get(id);
    if (before !== undefined) return before;
    const pid = Number(/^pid:(\d+)$/.exec(id)?.[1] ?? Number.NaN);
    if (!Number.isSafeInteger(pid) || (this.#pid !== undefined && this.#pid !== pid)) {
      throw new DomschedError('domain-not-found', `there is no virtual machine ${id}`, { domain: id });
    }
    return this.#open.add(id, await this.#attach(pid));
  }

  close(): Promise<void> {
    return this.#open.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #attach(pid: number): Promise<BrokeredDomain> {
    const client = this.#client;
    const { machine, process } = await client.ask({ op: 'open', pid });
    const view = new HandedView(pid, process.name, client.take(machine));
    try {
      const ram = attachRam(process, view);
      const { blocks, placement } = ram.boot;
      const placed = await client.ask({
        op: 'place',
        machine,
        blocks: blocks.map(({ start, length }) => ({ start, length })),
        low: placement.low,
      });
      return new BrokeredDomain(client, process, { machine, ram, view }, placed);
    } catch (error) {
      view.close();
      await client.ask({ op: 'close', machine }).catch(() => undefined);
      throw error;
    }
  }
}
