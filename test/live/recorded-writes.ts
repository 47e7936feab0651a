import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { wordBytes } from '../../runtime/edit/draft.ts';
import type { Edit, EditWrite } from '../../runtime/edit/edit.ts';
import { FRAME_SIZE, type GuestFrame } from '../../runtime/hypervisor/frame.ts';
import type { DomainWith, FrameWrite } from '../../runtime/hypervisor/types.ts';

/** A domain like another one, that has every write compared with the edit that was planned. */
export class RecordedWrites {
  readonly domain: DomainWith<'pause' | 'writeFrames' | 'registers'>;
  /** Edits that were written, and edits of which words were taken back. */
  edits = 0;
  undone = 0;
  words = 0;
  /** What is in no plan, in words. */
  readonly unplanned: string[] = [];
  #plan: Edit | undefined;

  /** @param around what is done beside each write; it has to call `write` */
  constructor(
    domain: DomainWith<'pause' | 'writeFrames' | 'registers'>,
    around: (write: () => void, writes: readonly FrameWrite[]) => void = (write) => write(),
  ) {
    const { writeFrames } = domain;
    const recorded = {
      write: (writes: readonly FrameWrite[]) => {
        this.#compare(writes);
        around(() => writeFrames.write(writes as readonly FrameWrite<never>[]), writes);
      },
    };
    this.domain = new Proxy(domain, {
      get(target, key) {
        if (key === 'writeFrames') return recorded;
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  /** For `OperateOptions.journal`: the edit whose words come next. */
  readonly journal = async (edit: Edit): Promise<void> => {
    this.#plan = edit;
  };

  #compare(writes: readonly FrameWrite[]): void {
    const plan = this.#plan?.writes ?? [];
    if (writes.length === plan.length && writes.every((write, i) => is(write, plan[i]!, plan[i]!.new))) {
      this.edits += 1;
      this.words += writes.length;
      return;
    }
    // Old words are put back one by one.
    if (writes.length === 1 && plan.some((word) => is(writes[0]!, word, word.old))) {
      this.undone += 1;
      return;
    }
    const where = writes.map(
      ({ frame, offset, bytes }) => `${frame}+${offset}: ${Buffer.from(bytes).toString('hex')}`,
    );
    this.unplanned.push(`${this.#plan?.title ?? 'no edit'}: ${where.join(', ')}`);
  }
}

/** Page tables that lie may lead elsewhere in the same guest, but to no other word of a page, and with no other value. */
function is({ offset, bytes }: FrameWrite, { address, size }: EditWrite, value: bigint): boolean {
  const inPage = Number(address % BigInt(FRAME_SIZE));
  return offset === inPage && Buffer.compare(bytes, wordBytes(value, size)) === 0;
}

/** All of a guest's memory, whose file has frame n at n pages. */
export class WholeMemory implements Disposable {
  readonly #handle: number;
  readonly #size: number;

  constructor(file: string) {
    this.#handle = openSync(file, 'r');
    this.#size = fstatSync(this.#handle).size;
  }

  read(): Buffer {
    const bytes = Buffer.allocUnsafe(this.#size);
    for (let at = 0; at < this.#size; ) {
      const got = readSync(this.#handle, bytes, at, this.#size - at, at);
      if (got === 0) throw new Error('the memory ends early');
      at += got;
    }
    return bytes;
  }

  /** @returns whether `write` changed the words that it is said to, and no other byte of the whole guest */
  changesOnly(write: () => void, writes: readonly FrameWrite<GuestFrame>[]): boolean {
    const before = this.read();
    write();
    for (const { frame, offset, bytes } of writes) before.set(bytes, frame * FRAME_SIZE + offset);
    return before.equals(this.read());
  }

  [Symbol.dispose](): void {
    closeSync(this.#handle);
  }
}
