import type { MonitorChanges } from '../broker/protocol.ts';
import { QemuRam } from '../hypervisor/qemu/ram.ts';
import type { BrokerClient } from './client.ts';
import type { ReadMemory } from './read-memory.ts';

/** How long what the monitor told may be taken for what is. */
const HEARD_MS = 500;

/** Frames of a guest whose monitor tells the broker where they are. */
export class MonitoredRam extends QemuRam {
  readonly #client: BrokerClient;
  readonly #machine: number;
  readonly #memory: ReadMemory;
  #version: number;
  #resets: number;
  #heardMs = performance.now();
  #hearing = false;
  #onReset: () => void = () => undefined;

  private constructor(
    client: BrokerClient,
    machine: { readonly number: number; readonly name: string; readonly memory: ReadMemory },
    { resets, ram }: MonitorChanges,
  ) {
    super(machine.name, ram!.physicalBits, []);
    this.#client = client;
    this.#machine = machine.number;
    this.#memory = machine.memory;
    this.#version = -1;
    this.#resets = resets;
    this.#take(ram);
  }

  /** Of a machine whose memory is placed. @throws DomschedError as `ask()` */
  static async open(
    client: BrokerClient,
    machine: { readonly number: number; readonly name: string; readonly memory: ReadMemory },
  ): Promise<MonitoredRam> {
    const changes = await client.ask({ op: 'changes', machine: machine.number, ram: -1 });
    return new MonitoredRam(client, machine, changes);
  }

  /** @param listener is told when the guest was reset */
  onReset(listener: () => void): void {
    this.#onReset = listener;
  }

  /** Asks, without waiting for it, what the monitor has told since. */
  renew(): void {
    if (this.#hearing || performance.now() - this.#heardMs < HEARD_MS) return;
    this.#hearing = true;
    this.hear()
      // Whoever reads next, or asks for its state, hears of it.
      .catch(() => undefined)
      .finally(() => {
        this.#hearing = false;
      });
  }

  /** Hears what the monitor has told since, unless it is known. @throws DomschedError as `ask()` */
  async hear(known?: { readonly resets: number; readonly ramVersion: number }): Promise<void> {
    if (known?.resets === this.#resets && known.ramVersion === this.#version) return;
    const { resets, ram } = await this.#client.ask({
      op: 'changes',
      machine: this.#machine,
      ram: this.#version,
    });
    this.#heardMs = performance.now();
    this.#take(ram);
    if (resets === this.#resets) return;
    this.#resets = resets;
    this.#onReset();
  }

  #take(ram: MonitorChanges['ram']): void {
    if (ram === null || ram.version === this.#version) return;
    this.#version = ram.version;
    this.replace([{ memory: this.#memory, segments: ram.places, mapping: undefined }]);
  }
}
