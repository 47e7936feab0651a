import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { vcpusByCpu } from '../guest/vcpus.ts';
import type { Domain, Notifier } from '../hypervisor/types.ts';
import type { SymbolName } from '../members/symbols.ts';
import { guestVirtual } from '../memory/address.ts';
import type { WantedInterrupt } from '../technique/step.ts';

const HANDLERS: Readonly<Record<WantedInterrupt['kind'], SymbolName>> = {
  reschedule: 'asm_sysvec_reschedule_ipi',
  'irq-work': 'asm_sysvec_irq_work',
};
/** Bytes of a gate (Intel SDM vol. 3A, 7.14.1), and vectors of an IDT. */
const GATE_SIZE = 16;
const VECTORS = 256;

/**
 * Sends a guest the interrupts that its kernel uses between CPUs. A vector comes from the guest's interrupt table: its
 * gate leads to the kernel's own handler. Interrupts are optional: if one cannot be sent or found, the guest's tick
 * does the work.
 */
export class Interrupts {
  readonly #notify: Notifier | undefined;
  readonly #vectors: ReadonlyMap<WantedInterrupt['kind'], number>;
  /** The hypervisor's CPU numbers by the kernel's. */
  readonly #vcpus: ReadonlyMap<number, number>;
  #failed = false;

  private constructor(
    notify: Notifier | undefined,
    vectors: ReadonlyMap<WantedInterrupt['kind'], number>,
    vcpus: ReadonlyMap<number, number>,
  ) {
    this.#notify = notify;
    this.#vectors = vectors;
    this.#vcpus = vcpus;
  }

  /** @throws DomschedError like reading registers and memory */
  static async of(domain: Domain, guest: Guest): Promise<Interrupts> {
    if (domain.notify?.kind !== 'msi' || domain.registers === undefined)
      return new Interrupts(undefined, new Map(), new Map());
    const registers = await domain.registers.read();
    const [boot] = registers;
    const vectors = new Map<WantedInterrupt['kind'], number>();
    if (boot === undefined) return new Interrupts(undefined, vectors, new Map());
    const vcpus = new Map([...vcpusByCpu(guest, registers)].map(([cpu, { vcpu }]) => [cpu, vcpu]));
    const table = guest.space.readBytes(guestVirtual(boot.idtBase), tableSize(boot.idtLimit));
    const handlers = handlersOf(table);
    for (const kind of ['reschedule', 'irq-work'] as const) {
      const handler = guest.symbol(HANDLERS[kind]);
      const found = handler === undefined ? [] : [...handlers].filter(([, address]) => address === handler);
      if (found.length === 1) vectors.set(kind, found[0]![0]);
    }
    return new Interrupts(domain.notify, vectors, vcpus);
  }

  /** The kinds that can be sent. */
  get kinds(): readonly WantedInterrupt['kind'][] {
    return this.#failed || this.#notify === undefined ? [] : [...this.#vectors.keys()];
  }

  /** The vector of a kind, as proved by the guest's table. */
  vector(kind: WantedInterrupt['kind']): number | undefined {
    return this.#vectors.get(kind);
  }

  /**
   * Sends the interrupts that can be sent. A failure does not fail the edit; later ones are left to the guest's ticks.
   */
  async send(wanted: readonly WantedInterrupt[]): Promise<void> {
    const sent = new Set<string>();
    for (const { cpu, kind } of wanted) {
      const vector = this.#vectors.get(kind);
      const key = `${cpu} ${kind}`;
      if (this.#failed || this.#notify === undefined || vector === undefined || sent.has(key)) continue;
      sent.add(key);
      try {
        // For a CPU that came up since, most guests use the hypervisor's number. A wrong CPU ignores the stray
        // interrupt.
        await this.#notify.inject(this.#vcpus.get(cpu) ?? cpu, vector);
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        this.#failed = true;
      }
    }
  }
}

function tableSize(limit: number): number {
  return Math.min(limit + 1, VECTORS * GATE_SIZE);
}

/** Handlers of the gates that are present, by vector. */
function handlersOf(table: Uint8Array): Map<number, bigint> {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
  const handlers = new Map<number, bigint>();
  // Vectors below 32 are the CPU's own exceptions.
  for (let vector = 32; (vector + 1) * GATE_SIZE <= view.byteLength; vector++) {
    const at = vector * GATE_SIZE;
    const present = view.getUint8(at + 5) >= 0x80;
    const low = BigInt(view.getUint16(at, true) | (view.getUint16(at + 6, true) << 16)) & 0xffff_ffffn;
    if (present) handlers.set(vector, (BigInt(view.getUint32(at + 8, true)) << 32n) | low);
  }
  return handlers;
}
