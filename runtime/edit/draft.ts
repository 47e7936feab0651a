import { DomschedError } from '../error.ts';
import { advance, FRAME_SIZE, formatAddress, type GuestVirtual } from '../memory/address.ts';
import { AddressMap } from '../memory/address-map.ts';
import type { AddressSpace } from '../memory/types.ts';
import type { Edit, EditRead, EditWrite, Invariant } from './edit.ts';
import { type MemoryView, type WordSize, wordIn } from './memory-view.ts';

const PAGE = BigInt(FRAME_SIZE);

/**
 * A plan may copy at most this many pages: far more than any edit needs, and a bound on what a lying guest can cost.
 */
const MAX_PAGES = 65_536;

interface Page {
  /** As read from the guest. */
  readonly base: DataView;
  /** With the plan's changes; the same object as `base` until the first one. */
  current: DataView;
  /** One flag per byte: whether the plan looked at it. */
  readonly looked: Uint8Array;
}

/**
 * A copy of guest memory that a plan reads and changes, filled page by page on demand. It remembers what was looked at
 * and changed, and returns both as an {@link Edit}. It never writes to the guest.
 */
export class Draft implements MemoryView {
  readonly #space: AddressSpace;
  readonly #pages = new AddressMap<bigint, Page>();
  readonly #writes = new AddressMap<bigint, EditWrite>();

  /** @param space of a domain that stays paused while the draft is used */
  constructor(space: AddressSpace) {
    this.#space = space;
  }

  word(address: GuestVirtual, size: WordSize): bigint {
    checkAligned(address, size);
    const page = this.#page(address);
    const offset = Number(address % PAGE);
    page.looked.fill(1, offset, offset + size);
    return wordIn(page.current, offset, size);
  }

  signed(address: GuestVirtual, size: WordSize): bigint {
    return BigInt.asIntN(size * 8, this.word(address, size));
  }

  pointer(address: GuestVirtual): GuestVirtual {
    return this.word(address, 8) as GuestVirtual;
  }

  block(address: GuestVirtual, length: number): DataView {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const at = advance(address, done);
      const page = this.#page(at);
      const offset = Number(at % PAGE);
      const part = Math.min(length - done, FRAME_SIZE - offset);
      page.looked.fill(1, offset, offset + part);
      bytes.set(new Uint8Array(page.current.buffer, offset, part), done);
      done += part;
    }
    return new DataView(bytes.buffer);
  }

  /**
   * Plans a write. A second write to the same word replaces the first.
   * @param what the word in the kernel's terms, for people
   * @throws RangeError for a value that does not fit, or a word that overlaps another written one
   */
  set(address: GuestVirtual, size: WordSize, value: bigint, what: string): void {
    const stored = BigInt.asUintN(size * 8, value);
    if (BigInt.asIntN(size * 8, value) !== value && stored !== value) {
      throw new RangeError(`${what}: ${value} does not fit ${size} bytes`);
    }
    const before = this.#writes.get(address);
    if (before === undefined) this.#checkOverlap(address, size, what);
    else if (before.size !== size) throw new RangeError(`${what} overlaps ${before.what}`);
    const old = before?.old ?? this.word(address, size);
    const page = this.#page(address);
    if (page.current === page.base) page.current = new DataView(page.base.buffer.slice(0));
    writeWord(page.current, Number(address % PAGE), size, stored);
    if (before === undefined) this.#writes.set(address, { address, size, old, new: stored, what });
    else this.#writes.set(address, { ...before, new: stored });
  }

  /** The changes planned so far, without words that end up unchanged. */
  edit(title: string, invariants: readonly Invariant[], outcome: readonly Invariant[]): Edit {
    const writes = [...this.#writes].map(([, write]) => write).filter((write) => write.old !== write.new);
    return { title, reads: this.#reads(), writes, invariants, outcome };
  }

  #reads(): EditRead[] {
    const reads: EditRead[] = [];
    for (const [number, { base, looked }] of this.#pages) {
      for (let start = looked.indexOf(1); start >= 0; ) {
        let end = looked.indexOf(0, start);
        if (end < 0) end = FRAME_SIZE;
        const bytes = new Uint8Array(base.buffer.slice(start, end) as ArrayBuffer);
        reads.push({ address: advance((number * PAGE) as GuestVirtual, start), bytes });
        start = looked.indexOf(1, end);
      }
    }
    return reads;
  }

  #checkOverlap(address: GuestVirtual, size: WordSize, what: string): void {
    // Words are aligned, so an overlapping one starts within the same 8 bytes.
    const first = address - (address % 8n);
    for (let near = first; near < first + 8n; near++) {
      const other = this.#writes.get(near);
      if (other !== undefined && near < address + BigInt(size) && address < near + BigInt(other.size)) {
        throw new RangeError(`${what} overlaps ${other.what}`);
      }
    }
  }

  #page(address: GuestVirtual): Page {
    const number = address / PAGE;
    const known = this.#pages.get(number);
    if (known !== undefined) return known;
    if (this.#pages.size === MAX_PAGES) {
      throw new DomschedError(
        'walk-unbounded',
        `the plan reached ${MAX_PAGES} pages: the guest's structures are not sane`,
        {
          address: formatAddress(address),
        },
      );
    }
    const bytes = this.#space.readBytes((number * PAGE) as GuestVirtual, FRAME_SIZE);
    const base = new DataView(new Uint8Array(bytes).buffer);
    const page: Page = { base, current: base, looked: new Uint8Array(FRAME_SIZE) };
    this.#pages.set(number, page);
    return page;
  }
}

/** The kernel aligns every word that we edit, so an address that is not aligned is a wild pointer. */
function checkAligned(address: GuestVirtual, size: WordSize): void {
  if (address % BigInt(size) === 0n) return;
  throw new DomschedError(
    'guest-inconsistent',
    `${formatAddress(address)} is no address of a ${size}-byte word`,
    {
      address: formatAddress(address),
      size,
    },
  );
}

function writeWord(view: DataView, offset: number, size: WordSize, value: bigint): void {
  if (size === 1) view.setUint8(offset, Number(value));
  else if (size === 2) view.setUint16(offset, Number(value), true);
  else if (size === 4) view.setUint32(offset, Number(value), true);
  else view.setBigUint64(offset, value, true);
}

/** Bytes of a word as the guest stores it. */
export function wordBytes(value: bigint, size: WordSize): Uint8Array {
  const bytes = new Uint8Array(size);
  writeWord(new DataView(bytes.buffer), 0, size, value);
  return bytes;
}
