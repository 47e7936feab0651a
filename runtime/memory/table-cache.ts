import { FRAME_SIZE, type FrameNumber } from '../hypervisor/frame.ts';
import { FRAME_STATUS, FrameBatch } from '../hypervisor/frame-batch.ts';
import type { FrameReader } from '../hypervisor/types.ts';
import type { TableSource } from './walker.ts';

/** Tables kept at most: 4 MiB of copies per address space, whatever the guest does. */
const MAX_TABLES = 1024;
/** If there are more tables than this at a new generation, they are dropped instead of read again. */
const MAX_REVALIDATED = 128;
/** Accessed and dirty: the processor sets these bits by itself, and they do not affect translation. */
const ACCESSED_DIRTY = 0x60;

interface CachedTable {
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/**
 * Copies of a guest's page tables, valid for one generation of the domain. For the next one they are read again in one
 * batch and compared: translations made from them are then all kept or all dropped.
 */
export class TableCache<F extends FrameNumber = FrameNumber> implements TableSource {
  readonly #reader: FrameReader<F>;
  readonly #tables = new Map<number, CachedTable | null>();
  readonly #wanted = new Set<number>();
  /** Tables were dropped since the last revalidation, so translations made from them can no longer be verified. */
  #forgot = false;
  readonly #batch = new FrameBatch<F>(MAX_TABLES * FRAME_SIZE * 2);

  constructor(reader: FrameReader<F>) {
    this.#reader = reader;
  }

  /** Number of tables held. */
  get size(): number {
    return this.#tables.size;
  }

  /** Takes the table from the cache or reads it from the guest by itself. */
  table(frame: number): DataView | null {
    let cached = this.#tables.get(frame);
    if (cached === undefined) {
      this.want(frame);
      this.fetch();
      cached = this.#tables.get(frame);
    }
    return cached?.view ?? null;
  }

  /** The table if cached, null if known not to be RAM, undefined if it must be fetched. */
  peek(frame: number): DataView | null | undefined {
    const cached = this.#tables.get(frame);
    return cached === undefined || cached === null ? cached : cached.view;
  }

  /** Requests a table for the next {@link fetch}. */
  want(frame: number): void {
    this.#wanted.add(frame);
  }

  /** Reads all requested tables with one call. */
  fetch(): void {
    if (this.#wanted.size === 0) return;
    if (this.#tables.size + this.#wanted.size > MAX_TABLES) {
      this.#tables.clear();
      this.#forgot = true;
    }
    const batch = this.#batch;
    batch.clear();
    for (const frame of this.#wanted) {
      if (batch.count === MAX_TABLES) break;
      batch.add(frame as F, 0, FRAME_SIZE);
    }
    this.#wanted.clear();
    this.#reader.read(batch);
    for (let i = 0; i < batch.count; i++) {
      if (batch.status[i] !== FRAME_STATUS.ok) {
        this.#tables.set(batch.frames[i]!, null);
        continue;
      }
      const bytes = batch.bytes.slice(batch.positions[i]!, batch.positions[i]! + FRAME_SIZE);
      this.#tables.set(batch.frames[i]!, { bytes, view: new DataView(bytes.buffer) });
    }
  }

  /**
   * Reads every table again and keeps what the guest has now.
   * @returns whether all translations from the old copies are still valid
   */
  revalidate(): boolean {
    if (this.#forgot || this.#tables.size === 0 || this.#tables.size > MAX_REVALIDATED) {
      this.#tables.clear();
      this.#forgot = false;
      return false;
    }
    const batch = this.#batch;
    batch.clear();
    for (const frame of this.#tables.keys()) batch.add(frame as F, 0, FRAME_SIZE);
    this.#reader.read(batch);
    let same = true;
    for (let i = 0; i < batch.count && same; i++) {
      same = this.#unchanged(batch, i);
    }
    if (!same) this.#tables.clear();
    return same;
  }

  #unchanged(batch: FrameBatch<F>, i: number): boolean {
    const cached = this.#tables.get(batch.frames[i]!);
    const there = batch.status[i] === FRAME_STATUS.ok;
    if (cached === undefined || cached === null) return cached === null && !there;
    if (!there) return false;
    const position = batch.positions[i]!;
    const now = batch.bytes.subarray(position, position + FRAME_SIZE);
    if (Buffer.compare(now, cached.bytes) === 0) return true;
    return sameEntries(now, cached.bytes);
  }
}

/** Whether two tables differ in accessed and dirty bits only. */
function sameEntries(now: Uint8Array, then: Uint8Array): boolean {
  for (let i = 0; i < FRAME_SIZE; i++) {
    if (now[i] === then[i]) continue;
    const ignored = (i & 7) === 0 ? ACCESSED_DIRTY : 0;
    if (((now[i]! ^ then[i]!) & ~ignored) !== 0) return false;
  }
  return true;
}
