import { FrameBatch } from '../hypervisor/frame-batch.ts';
import type { FrameReader } from '../hypervisor/types.ts';
import type { Field } from '../layout/field.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';
import { addressPointer, NO_POINTER } from './pointer.ts';

/**
 * The words of a guest's run queues that say which task is on each CPU, found once and then read by one scatter read, with
 * no page table and no generation: a hint for whoever looks between two looks, never a reason to write.
 */
export class CurrentWords {
  readonly #frames: FrameReader;
  readonly #batch = new FrameBatch();
  readonly #members: readonly Field[];
  readonly #cpus: number;

  /**
   * @param members `curr` and `idle` of a run queue
   * @throws DomschedError `translation-fault`
   */
  constructor(
    space: AddressSpace,
    queues: readonly GuestVirtual[],
    members: readonly [curr: Field, idle: Field],
  ) {
    this.#frames = space.domain.frames;
    this.#members = members;
    this.#cpus = queues.length;
    for (const queue of queues) {
      for (const { word } of members) {
        // An aligned word is within one page.
        const { frame, offset } = space.translate(advance(queue, word.offset));
        this.#batch.add(frame, offset, word.size);
      }
    }
  }

  /**
   * Reads them.
   * @returns tasks that are on a CPU, the idle ones left out; undefined if words cannot be read or are no pointers
   * @throws DomschedError `domain-gone`, `host-unreachable`
   */
  read(): readonly number[] | undefined {
    if (this.#frames.read(this.#batch) > 0) return undefined;
    const tasks: number[] = [];
    for (let cpu = 0; cpu < this.#cpus; cpu++) {
      const [curr, idle] = this.#members.map((member, i) => this.#pointer(member, 2 * cpu + i));
      if (curr === NO_POINTER) return undefined;
      if (curr !== idle) tasks.push(curr!);
    }
    return tasks;
  }

  #pointer(member: Field, index: number): number {
    return addressPointer(
      member.bigint(this.#batch.view, this.#batch.positions[index]! - member.word.offset) as GuestVirtual,
    );
  }
}
