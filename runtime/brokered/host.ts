import { OpenDomains } from '../hypervisor/open-domains.ts';
import type { Domain, DomainListing, Host } from '../hypervisor/types.ts';
import { attachRam } from '../hypervisor/vmm/attach-ram.ts';
import type { BrokerClient } from './client.ts';
import { BrokeredDomain } from './domain.ts';
import { errorOf } from './failure.ts';
import { MonitoredRam } from './monitored-ram.ts';
import { HandedView } from './view.ts';

/** The virtual machines of one place as the broker finds them. */
export class BrokeredHost implements Host {
  readonly hypervisor = 'qemu';
  readonly connection: string;
  readonly #client: BrokerClient;
  readonly #index: number;
  readonly #open = new OpenDomains<BrokeredDomain>();
  #ids: readonly string[] = [];
  #asking: Promise<unknown> | undefined;

  /** @param index of its connection among those that the broker was given */
  constructor(client: BrokerClient, connection: string, index = 0) {
    this.#client = client;
    this.connection = connection;
    this.#index = index;
  }

  async list(): Promise<readonly DomainListing[]> {
    const machines = await this.#client.ask({ op: 'list', host: this.#index });
    this.#ids = machines.map(({ identity }) => identity.id);
    return machines.map((machine) => {
      if (!('failure' in machine)) return machine;
      const { identity, failure, standing } = machine;
      return { identity, error: errorOf(failure), ...(standing && { standing }) };
    });
  }

  /** As of the last time that it was asked; the broker is asked again meanwhile. */
  ids(): readonly string[] {
    this.#asking ??= this.#client
      .ask({ op: 'ids', host: this.#index })
      .then(
        (ids) => {
          this.#ids = ids;
        },
        () => undefined,
      )
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#ids;
  }

  async open(id: string): Promise<Domain> {
    const before = await this.#open.get(id);
    if (before !== undefined) return before;
    return this.#open.add(id, await this.#attach(id));
  }

  close(): Promise<void> {
    return this.#open.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #attach(id: string): Promise<BrokeredDomain> {
    const client = this.#client;
    const { machine, identity, process } = await client.ask({
      op: 'open',
      host: this.#index,
      domain: id,
    });
    const { pid, name } = identity;
    const view = new HandedView(pid, name, client.take(machine));
    try {
      const found = process === null ? undefined : attachRam(process, view);
      const where = found && {
        blocks: found.boot.blocks.map(({ start, length }) => ({ start, length })),
        low: found.boot.placement.low,
      };
      const placed = await client.ask({ op: 'place', machine, ...(where && { where }) });
      const ram = found ?? (await MonitoredRam.open(client, { number: machine, name, memory: view.memory }));
      return new BrokeredDomain(client, identity, { machine, ram, view }, placed);
    } catch (error) {
      view.close();
      await client.ask({ op: 'close', machine }).catch(() => undefined);
      throw error;
    }
  }
}
