import { DomschedError } from '../error.ts';
import { ReadBatch } from '../memory/read-batch.ts';
import type { AddressSpace } from '../memory/types.ts';
import type { Description } from './description.ts';
import type { LookBudget } from './look-budget.ts';
import { type KernelPointer, kernelPointer } from './pointer.ts';
import { pointerHash } from './pointer-hash.ts';
import type { BlockSlot, PointerSlot, Shape, Slot } from './shape.ts';

const WORD = 0x1_0000_0000;
const INITIAL_OBJECTS = 64;
/** Most bytes that one scatter read asks for; more are read in several. */
const MAX_WAVE_BYTES = 4 * 1024 * 1024;
/** Most bytes of one arena, for looks without a budget: several times what the limits on objects allow. */
const MAX_BYTES = 1024 * 1024 * 1024;

/** Position of an object that was asked for and not yet read. */
const PENDING = -1;
/** Position of an object that is not wholly in the guest's memory. */
const ABSENT = -2;

/**
 * Copies of guest objects for one snapshot. Objects are asked for by pointer ({@link ObjectTable.want}); one
 * {@link fill} then reads all missing ones in one scatter read. Objects of the last snapshot are asked for first, so a
 * snapshot of a guest that changed little is a single scatter read. Nothing is allocated once the arena has grown to
 * the guest's size.
 */
export class Arena {
  /** Reads straight into the copies' place: its bytes are the arena's. */
  readonly #batch = new ReadBatch(MAX_BYTES);
  // Private because they are replaced when the batch grows, so nothing else may keep them.
  #bytes!: Uint8Array;
  #view!: DataView;
  #words!: Int32Array;
  /** Scatter reads since {@link begin}, and how many reads the last one could not complete. */
  #reads = 0;
  #incomplete = 0;
  readonly tables: ObjectTable<unknown>[] = [];
  #budget: LookBudget | undefined;

  constructor() {
    this.#followBatch();
  }

  /** @param limit most objects that a snapshot may have, because a guest's lists may be endless */
  table<Note = never>(name: string, shape: Shape, limit: number): ObjectTable<Note> {
    const table = new ObjectTable<Note>(this, name, shape, limit);
    this.tables.push(table);
    return table;
  }

  /**
   * Starts a snapshot: reads the objects that the last one used anew. A snapshot given up for its budget is not lost: the
   * next one begins with what it had found.
   */
  begin(space: AddressSpace, budget?: LookBudget): void {
    this.#budget = budget;
    const isSame = this.#reads === 1 && this.#incomplete === 0;
    this.#reads = 0;
    if (isSame && this.tables.every((table) => table.isAllUsed)) {
      // The very objects of the last snapshot, to the same places.
      this.#read(space);
      for (const table of this.tables) table.beginAgain();
      if (this.#incomplete > 0) for (const table of this.tables) table.acceptAgain(this.#batch);
      return;
    }
    this.#batch.clear();
    for (const table of this.tables) table.begin();
  }

  /** Reads all objects that were asked for and are not read yet. */
  fill(space: AddressSpace): void {
    const batch = this.#batch;
    while (this.tables.some((table) => table.isPending)) {
      batch.next();
      const end = batch.ranges.used + MAX_WAVE_BYTES;
      for (const table of this.tables) table.collect(batch, end);
      this.#read(space);
      for (const table of this.tables) table.accept(batch);
    }
  }

  #read(space: AddressSpace): void {
    this.#budget?.checkTime();
    this.#budget?.checkBytes(this.#batch.ranges.used);
    this.#incomplete = space.read(this.#batch);
    this.#reads += 1;
    this.#followBatch();
  }

  /** A pointer of the record at `base`. */
  pointer(base: number, slot: PointerSlot): KernelPointer {
    return this.pointerAt(base + slot.pointerAt);
  }

  /** The pointer at a position, for elements of arrays of links. */
  pointerAt(position: number): KernelPointer {
    return kernelPointer(this.#view.getUint32(position, true), this.#view.getUint32(position + 4, true));
  }

  /** The pointer in a word that also holds flags in its two lowest bits; 0 for null. */
  taggedPointer(base: number, slot: PointerSlot): number {
    const low = this.#view.getUint32(base + slot.pointerAt, true);
    const high = this.#view.getUint32(base + slot.pointerAt + 4, true);
    return high === 0 && low < 4 ? 0 : (high - WORD) * WORD + (low - (low & 3));
  }

  /** A number of the record at `base`, as exactly as a double can hold it. */
  number(base: number, slot: Slot): number {
    const position = base + slot.at;
    const view = this.#view;
    switch (slot.size) {
      case 8:
        return (
          (slot.signed ? view.getInt32(position + 4, true) : view.getUint32(position + 4, true)) * WORD +
          view.getUint32(position, true)
        );
      case 4:
        return slot.signed
          ? view.getInt32(position, true)
          : ((view.getUint32(position, true) >>> slot.shift) & slot.mask) >>> 0;
      case 2:
        return slot.signed
          ? view.getInt16(position, true)
          : (view.getUint16(position, true) >>> slot.shift) & slot.mask;
      case 1:
        return slot.signed ? view.getInt8(position) : (view.getUint8(position) >>> slot.shift) & slot.mask;
    }
  }

  /** A number that wraps around, such as a virtual run time, read as signed whatever its type says. */
  wrapping(base: number, slot: Slot): number {
    if (slot.size !== 8) return this.number(base, slot);
    const position = base + slot.at;
    return this.#view.getInt32(position + 4, true) * WORD + this.#view.getUint32(position, true);
  }

  /** Whether bit `index`, counted from a position on, is set. */
  bit(position: number, index: number): boolean {
    return ((this.#bytes[position + (index >>> 3)]! >>> (index & 7)) & 1) === 1;
  }

  /** A name up to its NUL, one character per byte. */
  text(base: number, { at, size }: BlockSlot): string {
    const bytes = this.#bytes.subarray(base + at, base + at + size);
    const end = bytes.indexOf(0);
    return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('latin1');
  }

  /**
   * Tells a description the words of the record at `base` that it is made from.
   * @param words positions in the record, in units of 4 bytes
   */
  tell(base: number, words: Int32Array, description: Description): void {
    const all = this.#words;
    const first = base >>> 2;
    for (let i = 0; i < words.length; i++) description.put(all[first + words[i]!]!);
  }

  #followBatch(): void {
    const { bytes, view } = this.#batch;
    if (bytes === this.#bytes) return;
    this.#bytes = bytes;
    this.#view = view;
    this.#words = new Int32Array(bytes.buffer);
  }
}

/**
 * Objects of one kind in a snapshot, from pointer to copy. Whoever walks over them may keep a note with each, which lasts
 * as long as every snapshot uses the object.
 */
export class ObjectTable<Note = unknown> {
  readonly shape: Shape;
  readonly limit: number;
  /** How many objects were asked for in this snapshot. */
  count = 0;
  pointers = new Float64Array(INITIAL_OBJECTS);
  /** By index. */
  readonly notes: (Note | undefined)[] = [];
  #arena: Arena;
  #name: string;
  #positions = new Int32Array(INITIAL_OBJECTS);
  /** Whether the walk asked for it, rather than our guess from the last snapshot; and how many are. */
  #used = new Uint8Array(INITIAL_OBJECTS);
  #usedCount = 0;
  /** Open addressing: index + 1 of the object in a slot. */
  #slots = new Int32Array(4 * INITIAL_OBJECTS);
  /** Objects before this one are read. */
  #filled = 0;
  /** Objects before this one are part of the current scatter read. */
  #collected = 0;
  /** Index in the scatter read of the first segment of the first of these objects. */
  #firstRead = 0;

  constructor(arena: Arena, name: string, shape: Shape, limit: number) {
    this.#arena = arena;
    this.#name = name;
    this.shape = shape;
    this.limit = limit;
  }

  /**
   * Forgets all copies and asks again for the objects that the last snapshot used, by ascending addresses: what lies together
   * in the guest is then read in one go.
   */
  begin(): void {
    const kept = this.pointers.slice(0, this.count).filter((_, index) => this.#used[index] === 1);
    // A typed array is sorted by number.
    kept.sort();
    const notes = Array.from(kept, (pointer) => this.notes[this.find(pointer)]);
    this.#slots.fill(0);
    this.count = 0;
    this.#usedCount = 0;
    this.#filled = 0;
    this.#collected = 0;
    for (const pointer of kept) this.#insert(pointer as KernelPointer, 0);
    this.notes.splice(0, this.notes.length, ...notes);
  }

  /** Whether the snapshot uses all objects that were read. */
  get isAllUsed(): boolean {
    return this.#usedCount === this.count && this.#filled === this.count;
  }

  /** Whether an object is not read yet. */
  get isPending(): boolean {
    return this.#filled < this.count;
  }

  /** As {@link begin}, for objects that are read to the same places again. */
  beginAgain(): void {
    this.#used.fill(0, 0, this.count);
    this.#usedCount = 0;
  }

  /**
   * Asks for the object at `pointer`.
   * @returns its index, whether or not it was asked for before
   * @throws DomschedError `walk-unbounded` beyond the limit
   */
  want(pointer: KernelPointer): number {
    const known = this.find(pointer);
    if (known >= 0) {
      if (this.#used[known] === 0) this.#usedCount += 1;
      this.#used[known] = 1;
      return known;
    }
    if (this.count >= this.limit) {
      throw new DomschedError(
        'walk-unbounded',
        `the guest links more than ${this.limit} objects of type ${this.#name}: its memory is corrupt or it lies`,
        { limit: this.limit, type: this.#name },
      );
    }
    return this.#insert(pointer, 1);
  }

  /** Index of an object that was asked for, otherwise -1. */
  find(pointer: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    for (let slot = pointerHash(pointer) & mask; ; slot = (slot + 1) & mask) {
      const entry = slots[slot]!;
      if (entry === 0) return -1;
      if (this.pointers[entry - 1] === pointer) return entry - 1;
    }
  }

  /**
   * Position of an object's copy in the arena's bytes. If need be, it is read first, with all others that wait.
   * @throws DomschedError `guest-inconsistent` when it is not in the guest's memory
   */
  position(index: number, space: AddressSpace): number {
    const position = this.tryPosition(index, space);
    if (position >= 0) return position;
    const address = this.pointers[index]!;
    throw new DomschedError(
      'guest-inconsistent',
      `a pointer to a ${this.#name} leads to ${BigInt.asUintN(64, BigInt(address)).toString(16)}, where the guest has no memory`,
      { type: this.#name, address: BigInt.asUintN(64, BigInt(address)) },
    );
  }

  /** As {@link position}; negative when the object is not in the guest's memory. */
  tryPosition(index: number, space: AddressSpace): number {
    if (this.#positions[index] === PENDING) this.#arena.fill(space);
    return this.#positions[index]!;
  }

  /** Position of a copy that {@link position} has already returned. */
  copy(index: number): number {
    return this.#positions[index]!;
  }

  /** Adds the reads of objects that are not read yet, until the batch's bytes end there. */
  collect(batch: ReadBatch, end: number): void {
    const { segments } = this.shape;
    let index = this.#filled;
    this.#firstRead = batch.count;
    for (; index < this.count && batch.ranges.used < end; index++) {
      const pointer = this.pointers[index]!;
      const high = Math.floor(pointer / WORD);
      const low = pointer - high * WORD;
      for (const segment of segments) batch.addHalves(low, high >>> 0, segment.offset, segment.length);
    }
    this.#collected = index;
  }

  /** Takes the result of a scatter read. */
  accept(batch: ReadBatch): void {
    if (this.#filled === this.#collected) return;
    let read = this.#firstRead;
    const each = this.shape.segments.length;
    for (let index = this.#filled; index < this.#collected; index++, read += each) {
      let complete = true;
      for (let k = 0; k < each; k++) if (!batch.complete(read + k)) complete = false;
      this.#positions[index] = complete ? batch.positions[read]! : ABSENT;
    }
    this.#filled = this.#collected;
  }

  /** Takes the result of the same scatter read, made again. */
  acceptAgain(batch: ReadBatch): void {
    this.#filled = 0;
    this.accept(batch);
  }

  #insert(pointer: KernelPointer, used: 0 | 1): number {
    const index = this.count;
    if (index === this.pointers.length) this.#grow();
    this.pointers[index] = pointer;
    this.#positions[index] = PENDING;
    this.#used[index] = used;
    this.#usedCount += used;
    this.count = index + 1;
    this.#link(index);
    return index;
  }

  #link(index: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = pointerHash(this.pointers[index]!) & mask;
    while (slots[slot] !== 0) slot = (slot + 1) & mask;
    slots[slot] = index + 1;
  }

  #grow(): void {
    const size = this.pointers.length * 2;
    const pointers = new Float64Array(size);
    pointers.set(this.pointers);
    this.pointers = pointers;
    const positions = new Int32Array(size);
    positions.set(this.#positions);
    this.#positions = positions;
    const used = new Uint8Array(size);
    used.set(this.#used);
    this.#used = used;
    this.#slots = new Int32Array(4 * size);
    for (let index = 0; index < this.count; index++) this.#link(index);
  }
}
