import { FrameBatch } from '../hypervisor/frame-batch.ts';
import type { Field } from '../layout/field.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import { addressPointer, NO_POINTER } from './pointer.ts';

/** Members of a run queue that show whether its CPU has gone on, as far as a kernel has them. */
export interface QueueFields {
  readonly switches: Field | undefined;
  readonly tick: Field | undefined;
  readonly curr: Field;
  readonly idle: Field;
}

type QueueMember = keyof QueueFields;

/**
 * A few words of each run queue of a guest, found once and then read by one scatter read, without a page table: the kernel
 * never moves its run queues. If another kernel is there, they hold whatever it has written there: reason to look, never to
 * write.
 */
export class QueueWords {
  readonly #space: AddressSpace;
  readonly #batch = new FrameBatch();
  readonly #addresses: GuestVirtual[] = [];
  readonly #fields: QueueFields;
  /** Index in the batch of each member of each CPU. */
  readonly #cpus: Partial<Record<QueueMember, number>>[];

  /** @throws DomschedError `translation-fault` */
  constructor(space: AddressSpace, queues: readonly GuestVirtual[], fields: QueueFields) {
    this.#space = space;
    this.#fields = fields;
    this.#cpus = queues.map((queue) => {
      const found: Partial<Record<QueueMember, number>> = {};
      for (const [name, field] of Object.entries(fields) as [QueueMember, Field | undefined][]) {
        if (field === undefined) continue;
        // An aligned word is within one page.
        const address = advance(queue, field.word.offset);
        const { frame, offset } = space.translate(address);
        this.#addresses.push(address);
        found[name] = this.#batch.add(frame, offset, field.word.size);
      }
      return found;
    });
  }

  /** Reads them. @throws DomschedError `translation-fault`, `domain-gone`, `host-unreachable` */
  read(): void {
    if (this.#space.domain.frames.read(this.#batch) === 0) return;
    // Some are no longer there: say so as every other read does.
    for (const address of this.#addresses) this.#space.readBytes(address, 1);
  }

  /** A member as {@link read} found it; undefined if the kernel does not have it. */
  value(cpu: number, member: QueueMember): bigint | undefined {
    const field = this.#fields[member];
    const index = this.#cpus[cpu]?.[member];
    if (field === undefined || index === undefined) return undefined;
    return field.bigint(this.#batch.view, this.#batch.positions[index]! - field.word.offset);
  }

  /** Progress of the guest as {@link read} found it, see `Guest.advance`. */
  advance(): { readonly count: bigint; readonly idle: boolean } {
    let count = 0n;
    let idle = true;
    for (let cpu = 0; cpu < this.#cpus.length; cpu++) {
      count += (this.value(cpu, 'switches') ?? 0n) + (this.value(cpu, 'tick') ?? 0n);
      if (this.value(cpu, 'curr') !== this.value(cpu, 'idle')) idle = false;
    }
    return { count, idle };
  }

  /** Tasks that {@link read} found on CPUs, the idle ones left out; undefined if one is no pointer. */
  tasks(): readonly number[] | undefined {
    const tasks: number[] = [];
    for (let cpu = 0; cpu < this.#cpus.length; cpu++) {
      const address = this.value(cpu, 'curr') as GuestVirtual;
      const curr = addressPointer(address);
      if (curr === NO_POINTER) return undefined;
      if (address !== this.value(cpu, 'idle')) tasks.push(curr);
    }
    return tasks;
  }
}
