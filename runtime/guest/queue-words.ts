import { FrameBatch } from '../hypervisor/frame-batch.ts';
import type { Field } from '../layout/field.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import { kernelPointer, NO_POINTER } from './pointer.ts';

const WORD = 0x1_0000_0000;

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
  /** Members of 8 bytes; the others have 4. */
  readonly #isLong: Readonly<Record<QueueMember, boolean>>;
  /** Content of the batch, in units of 4 bytes: the members are words, so no bigint is made of them. */
  readonly #halves: Uint32Array;
  /** Position there of each member of each CPU. */
  readonly #cpus: Partial<Record<QueueMember, number>>[];

  /** @throws DomschedError `translation-fault` */
  constructor(space: AddressSpace, queues: readonly GuestVirtual[], fields: QueueFields) {
    this.#space = space;
    this.#isLong = Object.fromEntries(
      Object.entries(fields).map(([name, field]: [string, Field | undefined]) => [
        name,
        field?.word.size === 8,
      ]),
    ) as Record<QueueMember, boolean>;
    this.#cpus = queues.map((queue) => {
      const found: Partial<Record<QueueMember, number>> = {};
      for (const [name, field] of Object.entries(fields) as [QueueMember, Field | undefined][]) {
        if (field === undefined) continue;
        // An aligned word is within one page.
        const address = advance(queue, field.word.offset);
        const { frame, offset } = space.translate(address);
        this.#addresses.push(address);
        found[name] = this.#batch.positions[this.#batch.add(frame, offset, field.word.size)]! >>> 2;
      }
      return found;
    });
    this.#halves = new Uint32Array(this.#batch.bytes.buffer);
  }

  /** Reads them. @throws DomschedError `translation-fault`, `domain-gone`, `host-unreachable` */
  read(): void {
    if (this.#space.domain.frames.read(this.#batch) === 0) return;
    // Some are no longer there: say so as every other read does.
    for (const address of this.#addresses) this.#space.readBytes(address, 1);
  }

  /** Switches of a CPU as {@link read} found them; undefined if the kernel does not count them. */
  switches(cpu: number): number | undefined {
    const at = this.#cpus[cpu]?.switches;
    if (at === undefined) return undefined;
    return (this.#isLong.switches ? this.#halves[at + 1]! * WORD : 0) + this.#halves[at]!;
  }

  /** Progress of the guest as {@link read} found it, see `Guest.advance`. */
  advance(): { readonly count: number; readonly idle: boolean } {
    let count = 0;
    let idle = true;
    for (let cpu = 0; cpu < this.#cpus.length; cpu++) {
      const { switches, tick } = this.#cpus[cpu]!;
      count += this.#mixed(switches, this.#isLong.switches) + this.#mixed(tick, this.#isLong.tick);
      idle &&= this.#idles(cpu);
    }
    return { count, idle };
  }

  /** Tasks that {@link read} found on CPUs, the idle ones left out; undefined if one is no pointer. */
  tasks(): readonly number[] | undefined {
    const tasks: number[] = [];
    for (let cpu = 0; cpu < this.#cpus.length; cpu++) {
      const at = this.#cpus[cpu]!.curr!;
      const curr = kernelPointer(this.#halves[at]!, this.#halves[at + 1]!);
      if (curr === NO_POINTER) return undefined;
      if (!this.#idles(cpu)) tasks.push(curr);
    }
    return tasks;
  }

  #idles(cpu: number): boolean {
    const halves = this.#halves;
    const { curr, idle } = this.#cpus[cpu]!;
    return halves[curr!] === halves[idle!] && halves[curr! + 1] === halves[idle! + 1];
  }

  /** The sum of a word's halves: exact, and another one when the word goes on. */
  #mixed(at: number | undefined, isLong: boolean): number {
    if (at === undefined) return 0;
    return this.#halves[at]! + (isLong ? this.#halves[at + 1]! : 0);
  }
}
