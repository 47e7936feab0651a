import { DomschedError } from '../error.ts';
import { ReadBatch } from '../memory/read-batch.ts';
import type { AddressSpace } from '../memory/types.ts';
import type { LookBudget } from './look-budget.ts';
import { type KernelPointer, kernelPointer } from './pointer.ts';
import { pointerHash } from './pointer-hash.ts';
import type { BlockSlot, PointerSlot, Shape, Slot } from './shape.ts';

const WORD = 0x1_0000_0000;
const INITIAL_OBJECTS = 64;
const INITIAL_BYTES = 64 * 1024;
/** Most bytes that one scatter read asks for; more are read in several. */
const MAX_WAVE_BYTES = 4 * 1024 * 1024;

/** Shared by all arenas: a scatter read ends before the next begins, and its bytes are copied out. */
const batch = new ReadBatch(2 * MAX_WAVE_BYTES);

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
  // Private because they are replaced when the arena grows, so nothing else may keep them.
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView<ArrayBuffer>;
  #words: Int32Array<ArrayBuffer>;
  /** Scatter reads since {@link begin}. */
  waves = 0;
  readonly tables: ObjectTable<unknown>[] = [];
  #used = 0;
  #budget: LookBudget | undefined;

  /** @param initialBytes initial size */
  constructor(initialBytes = INITIAL_BYTES) {
    this.#bytes = new Uint8Array(new ArrayBuffer(initialBytes));
    this.#view = new DataView(this.#bytes.buffer);
    this.#words = new Int32Array(this.#bytes.buffer);
  }

  /** @param limit most objects that a snapshot may have, because a guest's lists may be endless */
  table<Note = never>(name: string, shape: Shape, limit: number): ObjectTable<Note> {
    const table = new ObjectTable<Note>(this, name, shape, limit);
    this.tables.push(table);
    return table;
  }

  /**
   * Starts a snapshot: forgets all copies and asks for the objects that the last one used. A snapshot given up for its
   * budget is not lost: the next one begins with what it had found.
   */
  begin(budget?: LookBudget): void {
    this.#budget = budget;
    this.#used = 0;
    this.waves = 0;
    for (const table of this.tables) table.begin();
  }

  /** Reads all objects that were asked for and are not read yet. */
  fill(space: AddressSpace): void {
    this.waves += 1;
    this.#budget?.checkTime();
    for (;;) {
      batch.clear();
      for (const table of this.tables) table.collect(batch, MAX_WAVE_BYTES);
      if (batch.count === 0) return;
      space.read(batch);
      const base = this.#reserve(batch.ranges.used);
      this.#bytes.set(batch.bytes.subarray(0, batch.ranges.used), base);
      for (const table of this.tables) table.accept(batch, base);
    }
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
   * Copies words of the record at `base`.
   * @param words positions in the record, in units of 4 bytes
   * @returns position in `into` after the last one
   */
  copyWords(base: number, words: Int32Array, into: Int32Array, position: number): number {
    const all = this.#words;
    const first = base >>> 2;
    for (let i = 0; i < words.length; i++) into[position + i] = all[first + words[i]!]!;
    return position + words.length;
  }

  #reserve(length: number): number {
    const base = this.#used;
    const end = base + ((length + 7) & ~7);
    this.#budget?.checkBytes(end);
    if (end > this.#bytes.length) {
      let size = this.#bytes.length;
      while (size < end) size *= 2;
      const grown = new Uint8Array(new ArrayBuffer(size));
      grown.set(this.#bytes.subarray(0, base));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
      this.#words = new Int32Array(grown.buffer);
    }
    this.#used = end;
    return base;
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
  /** Whether the walk asked for it, rather than our guess from the last snapshot. */
  #used = new Uint8Array(INITIAL_OBJECTS);
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

  /** Forgets all copies and asks again for the objects that the last snapshot used. */
  begin(): void {
    const before = this.count;
    this.#slots.fill(0);
    this.count = 0;
    this.#filled = 0;
    this.#collected = 0;
    for (let i = 0; i < before; i++) {
      if (this.#used[i] !== 1) continue;
      const index = this.#insert(this.pointers[i] as KernelPointer, 0);
      this.notes[index] = this.notes[i];
    }
    this.notes.length = this.count;
  }

  /** Also forgets what the last snapshot used. */
  forget(): void {
    this.count = 0;
    this.notes.length = 0;
    this.#slots.fill(0);
    this.#filled = 0;
    this.#collected = 0;
  }

  /**
   * Asks for the object at `pointer`.
   * @returns its index, whether or not it was asked for before
   * @throws DomschedError `walk-unbounded` beyond the limit
   */
  want(pointer: KernelPointer): number {
    const known = this.find(pointer);
    if (known >= 0) {
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

  /** Adds the reads of objects that are not read yet, up to a number of bytes. */
  collect(batch: ReadBatch, maxBytes: number): void {
    const { segments } = this.shape;
    let index = this.#filled;
    this.#firstRead = batch.count;
    for (; index < this.count && batch.ranges.used < maxBytes; index++) {
      const pointer = this.pointers[index]!;
      const high = Math.floor(pointer / WORD);
      const low = pointer - high * WORD;
      for (const segment of segments) batch.addHalves(low, high >>> 0, segment.offset, segment.length);
    }
    this.#collected = index;
  }

  /** Takes the result of a scatter read. `base` is the position of the batch's bytes in the arena. */
  accept(batch: ReadBatch, base: number): void {
    if (this.#filled === this.#collected) return;
    let read = this.#firstRead;
    const each = this.shape.segments.length;
    for (let index = this.#filled; index < this.#collected; index++, read += each) {
      let complete = true;
      for (let k = 0; k < each; k++) if (!batch.complete(read + k)) complete = false;
      this.#positions[index] = complete ? base + batch.positions[read]! : ABSENT;
    }
    this.#filled = this.#collected;
  }

  #insert(pointer: KernelPointer, used: 0 | 1): number {
    const index = this.count;
    if (index === this.pointers.length) this.#grow();
    this.pointers[index] = pointer;
    this.#positions[index] = PENDING;
    this.#used[index] = used;
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
