/** Something that has a place among others of its kind. */
export interface Placed {
  place: number;
}

/**
 * One value of each of several entries, as an array. It is replaced and never changed, since whoever takes it may keep
 * it; only the values of entries that have changed are asked for again.
 */
export class Column<E extends Placed, T> {
  readonly #read: (entry: E) => T;
  #values: readonly T[] | undefined;
  #changed: E[] = [];

  constructor(read: (entry: E) => T) {
    this.#read = read;
  }

  /** The same array as before if no entry has changed. */
  values(entries: ReadonlyMap<unknown, E>): readonly T[] {
    if (this.#values === undefined) {
      this.#values = Array.from(entries.values(), (entry, i) => {
        entry.place = i;
        return this.#read(entry);
      });
    } else if (this.#changed.length > 0) {
      const values = this.#values.slice();
      for (const entry of this.#changed) values[entry.place] = this.#read(entry);
      this.#values = values;
    }
    this.#changed.length = 0;
    return this.#values;
  }

  /** The value of one entry has changed. */
  change(entry: E): void {
    if (this.#values === undefined) return;
    this.#changed.push(entry);
    // Nobody asks for them any longer.
    if (this.#changed.length > this.#values.length) this.forget();
  }

  /** There are other entries than before. */
  forget(): void {
    this.#values = undefined;
    this.#changed.length = 0;
  }
}
