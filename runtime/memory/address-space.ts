import { FRAME_SIZE, type FrameNumber } from '../hypervisor/frame.ts';
import { FRAME_STATUS } from '../hypervisor/frame-batch.ts';
import type { Domain } from '../hypervisor/types.ts';
import { type GuestVirtual, guestVirtual } from './address.ts';
import { type FaultFacts, TranslationFault } from './fault.ts';
import { ReadBatch } from './read-batch.ts';
import { TableCache } from './table-cache.ts';
import type { AddressSpace, PagingMode, ReadRequest, Translation } from './types.ts';
import { isFault, walk } from './walker.ts';

/**
 * Sets of the translation cache at first and at most (2 MiB); each has two slots that begin at an even index. Hundreds
 * of guests get a small cache each; a guest with thousands of tasks gets a big one.
 */
const FIRST_SETS = 256;
const MAX_SETS = 65_536;
const EMPTY = -1;
/** One walk needs at most this many rounds: one per table, plus one that finds nothing more. */
const MAX_ROUNDS = 6;

/** {@link AddressSpace} that walks the guest's own page tables. */
export class PagedAddressSpace<F extends FrameNumber = FrameNumber> implements AddressSpace<F> {
  readonly domain: Domain<F>;
  readonly mode: PagingMode;
  readonly root: number;
  readonly #tables: TableCache<F>;
  /** Page number and frame of each cached translation, in parallel arrays so that a look-up allocates nothing. */
  #pages = new Float64Array(2 * FIRST_SETS).fill(EMPTY);
  #frames = new Float64Array(2 * FIRST_SETS);
  #generation: number;
  /** Another object whenever translations may have changed. */
  #translations = {};
  /** Page-sized parts of the batch being read: index of the read, and frame (or EMPTY). */
  #partRead = new Uint32Array(256);
  #partFrame = new Float64Array(256);
  readonly #missing: number[] = [];
  readonly #partFaults = new Map<number, FaultFacts>();
  readonly #single = new ReadBatch();

  constructor(domain: Domain<F>, mode: PagingMode, root: number) {
    this.domain = domain;
    this.mode = mode;
    this.root = root;
    this.#tables = new TableCache(domain.frames);
    this.#generation = domain.generation;
  }

  read(batch: ReadBatch): number {
    this.#refresh();
    if (batch.translations === this.#translations && this.#readAgain(batch)) return 0;
    batch.translations = undefined;
    batch.ranges.count = 0;
    if (batch.faults.size > 0) batch.faults.clear();
    const parts = this.#split(batch);
    if (this.#missing.length > 0) this.#resolve(batch);
    this.#place(batch, parts);
    const failed = this.domain.frames.read(batch.ranges);
    const incomplete = this.#account(batch, parts, failed > 0);
    if (incomplete === 0) batch.translations = this.#translations;
    return incomplete;
  }

  /** Reads from the same frames as before. @returns whether all of it is still there */
  #readAgain({ ranges }: ReadBatch): boolean {
    ranges.status.fill(FRAME_STATUS.pending, 0, ranges.count);
    return this.domain.frames.read(ranges) === 0;
  }

  readAll(requests: readonly ReadRequest[]): void {
    const batch = this.#single;
    batch.clear();
    for (const { address, into } of requests) batch.add(address, into.length);
    if (this.read(batch) > 0) this.#throwFirst(batch);
    for (const [index, { into }] of requests.entries()) into.set(batch.content(index));
  }

  readBytes(address: GuestVirtual, length: number): Uint8Array {
    this.#readOne(address, length);
    return this.#single.content(0).slice();
  }

  readU32(address: GuestVirtual): number {
    const position = this.#readOne(address, 4);
    return this.#single.view.getUint32(position, true);
  }

  readU64(address: GuestVirtual): bigint {
    const position = this.#readOne(address, 8);
    return this.#single.view.getBigUint64(position, true);
  }

  readPointer(address: GuestVirtual): GuestVirtual {
    return this.readU64(address) as GuestVirtual;
  }

  readString(address: GuestVirtual, limit: number): string {
    const batch = this.#single;
    batch.clear();
    batch.add(address, limit);
    this.read(batch);
    const content = batch.content(0).subarray(0, batch.mapped(0));
    const end = content.indexOf(0);
    // The string may end before the missing page.
    if (end < 0 && !batch.complete(0)) this.#throwFirst(batch);
    return Buffer.from(end < 0 ? content : content.subarray(0, end)).toString('latin1');
  }

  translate(address: GuestVirtual): Translation<F> {
    const result = this.probe(address);
    if (isFault(result)) throw new TranslationFault(result, this.domain.identity.name);
    return result;
  }

  probe(address: GuestVirtual): Translation<F> | FaultFacts {
    this.#refresh();
    return walk<F>(this.#tables, this.mode, this.root, address);
  }

  locate(address: GuestVirtual, length: number): readonly { frame: F; offset: number; length: number }[] {
    const parts: { frame: F; offset: number; length: number }[] = [];
    let done = 0;
    while (done < length) {
      const { frame, offset } = this.translate(guestVirtual(address + BigInt(done)));
      const part = Math.min(length - done, FRAME_SIZE - offset);
      parts.push({ frame, offset, length: part });
      done += part;
    }
    return parts;
  }

  /** A new generation: cached translations are valid only if the guest's tables are unchanged. */
  #refresh(): void {
    if (this.#generation === this.domain.generation) return;
    const generation = this.domain.generation;
    if (!this.#tables.revalidate()) {
      this.#pages.fill(EMPTY);
      this.#translations = {};
    }
    this.#generation = generation;
  }

  /** Splits every read at page borders, looks up each part and lists the misses. @returns number of parts */
  #split(batch: ReadBatch): number {
    this.#missing.length = 0;
    if (this.#partFaults.size > 0) this.#partFaults.clear();
    let parts = 0;
    for (let i = 0; i < batch.count; i++) {
      let low = batch.halves[2 * i]!;
      let high = batch.halves[2 * i + 1]!;
      let left = batch.lengths[i]!;
      while (left > 0) {
        if (parts === this.#partRead.length) this.#growParts();
        // A page number has 52 bits, which a double represents exactly.
        const page = high * 0x10_0000 + (low >>> 12);
        let slot = this.#slotOf(low, high);
        if (this.#pages[slot] !== page) slot += 1;
        const hit = this.#pages[slot] === page;
        this.#partRead[parts] = i;
        this.#partFrame[parts] = hit ? this.#frames[slot]! : EMPTY;
        if (!hit) this.#missing.push(parts, low, high);
        parts += 1;
        const step = Math.min(left, FRAME_SIZE - (low & 0xfff));
        left -= step;
        const next = low + step;
        low = next >>> 0;
        if (next >= 0x1_0000_0000) high = (high + 1) >>> 0;
      }
    }
    return parts;
  }

  /** Walks for all missing parts at once, level by level, with one call per level to fetch tables. */
  #resolve(batch: ReadBatch): void {
    let pending = this.#missing;
    this.#growCache(pending.length / 3);
    // A long read consists mostly of large pages, whose parts need only one walk.
    let large: { readonly page: number; readonly pages: number; readonly frame: number } | undefined;
    for (let round = 0; pending.length > 0 && round < MAX_ROUNDS; round++) {
      const again: number[] = [];
      for (let k = 0; k < pending.length; k += 3) {
        const part = pending[k]!;
        const low = pending[k + 1]!;
        const high = pending[k + 2]!;
        const page = high * 0x10_0000 + (low >>> 12);
        if (large !== undefined && page >= large.page && page < large.page + large.pages) {
          this.#remember(part, low, high, large.frame + (page - large.page));
          continue;
        }
        const address = ((BigInt(high) << 32n) | BigInt(low)) as GuestVirtual;
        // In the last round tables are read one by one, because the bounded cache may have been emptied.
        const last = round === MAX_ROUNDS - 1;
        const result = last
          ? walk<F>(this.#tables, this.mode, this.root, address)
          : walkCached<F>(this.#tables, this.mode, this.root, address);
        if (result === null) again.push(part, low, high);
        else if (isFault(result)) this.#partFaults.set(part, result);
        else {
          const pages = result.pageSize / FRAME_SIZE;
          if (pages > 1)
            large = { page: page - (page % pages), pages, frame: result.frame - (result.frame % pages) };
          this.#remember(part, low, high, result.frame);
        }
      }
      this.#tables.fetch();
      pending = again;
    }
    batch.ranges.count = 0;
  }

  #remember(part: number, low: number, high: number, frame: number): void {
    this.#partFrame[part] = frame;
    const slot = this.#slotOf(low, high);
    const page = high * 0x10_0000 + (low >>> 12);
    if (this.#pages[slot] !== page) {
      this.#pages[slot + 1] = this.#pages[slot]!;
      this.#frames[slot + 1] = this.#frames[slot]!;
    }
    this.#pages[slot] = page;
    this.#frames[slot] = frame;
  }

  /** Turns the mapped parts into frame ranges. */
  #place(batch: ReadBatch, parts: number): void {
    const ranges = batch.ranges;
    let read = -1;
    let done = 0;
    for (let part = 0; part < parts; part++) {
      const i = this.#partRead[part]!;
      if (i !== read) {
        read = i;
        done = 0;
      }
      const offset = (batch.halves[2 * i]! + done) & 0xfff;
      const length = Math.min(batch.lengths[i]! - done, FRAME_SIZE - offset);
      const position = batch.positions[i]! + done;
      const frame = this.#partFrame[part]!;
      if (frame === EMPTY) ranges.bytes.fill(0, position, position + length);
      else ranges.place(frame as F, offset, length, position);
      done += length;
    }
  }

  /** Sets for each read how far it got, up to its first failed part. @returns number of incomplete reads */
  #account(batch: ReadBatch, parts: number, failures: boolean): number {
    if (!failures && this.#partFaults.size === 0) {
      batch.mappedLengths.set(batch.lengths.subarray(0, batch.count));
      return 0;
    }
    let incomplete = 0;
    let range = 0;
    let read = -1;
    let done = 0;
    let broken = false;
    for (let part = 0; part < parts; part++) {
      const i = this.#partRead[part]!;
      if (i !== read) {
        read = i;
        done = 0;
        broken = false;
        batch.mappedLengths[i] = 0;
      }
      const offset = (batch.halves[2 * i]! + done) & 0xfff;
      const length = Math.min(batch.lengths[i]! - done, FRAME_SIZE - offset);
      const frame = this.#partFrame[part]!;
      const ok = frame !== EMPTY && batch.ranges.status[range] === FRAME_STATUS.ok;
      if (frame !== EMPTY) range += 1;
      if (!ok && !broken) {
        broken = true;
        incomplete += 1;
        batch.faults.set(i, this.#partFaults.get(part) ?? this.#frameFault(batch, i, done));
      }
      if (!broken) batch.mappedLengths[i] = done + length;
      done += length;
    }
    return incomplete;
  }

  #frameFault(batch: ReadBatch, index: number, done: number): FaultFacts {
    const address = guestVirtual(batch.addresses[index]! + BigInt(done));
    const { root } = this;
    return { address, root, reason: 'frame-unmapped', level: 0, entryAddress: undefined, entry: undefined };
  }

  #readOne(address: GuestVirtual, length: number): number {
    const batch = this.#single;
    batch.clear();
    batch.add(address, length);
    if (this.read(batch) > 0) this.#throwFirst(batch);
    return batch.positions[0]!;
  }

  #throwFirst(batch: ReadBatch): never {
    for (let i = 0; i < batch.count; i++) {
      const facts = batch.fault(i);
      if (facts !== undefined) throw new TranslationFault(facts, this.domain.identity.name);
    }
    throw new RangeError('every read of the batch is complete');
  }

  /** First slot of a page's set. The number is mixed, since kernel objects lie powers of two apart. */
  #slotOf(low: number, high: number): number {
    const mixed = Math.imul((low >>> 12) ^ high, 0x9e37_79b1);
    return ((mixed >>> 15) & (this.#pages.length / 2 - 1)) * 2;
  }

  /** Grows the cache for so many more translations, with few collisions. */
  #growCache(misses: number): void {
    let sets = this.#pages.length / 2;
    while (sets < MAX_SETS && sets < 4 * misses) sets *= 2;
    if (2 * sets === this.#pages.length) return;
    this.#pages = new Float64Array(2 * sets).fill(EMPTY);
    this.#frames = new Float64Array(2 * sets);
  }

  #growParts(): void {
    const reads = new Uint32Array(this.#partRead.length * 2);
    reads.set(this.#partRead);
    this.#partRead = reads;
    const frames = new Float64Array(reads.length);
    frames.set(this.#partFrame);
    this.#partFrame = frames;
  }
}

/** Walks with the tables in the cache; returns null and requests the missing table if one must be fetched. */
function walkCached<F extends FrameNumber>(
  tables: TableCache<F>,
  mode: PagingMode,
  root: number,
  address: GuestVirtual,
): Translation<F> | FaultFacts | null {
  let missing = false;
  const result = walk<F>(
    {
      table(frame) {
        const view = tables.peek(frame);
        if (view !== undefined) return view;
        missing = true;
        tables.want(frame);
        return null;
      },
    },
    mode,
    root,
    address,
  );
  return missing ? null : result;
}
