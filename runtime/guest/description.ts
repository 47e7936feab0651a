import type { Process } from './process.ts';

const INITIAL_WORDS = 64;

/**
 * How a task was described, and from which words: while these are the same, so is the description. Words are told anew at
 * each look and compared on the way. One that differs ends the description at once, so that it ends too if the walk
 * fails before all words are told.
 */
export class Description {
  #process: Process | undefined;
  #words = new Int32Array(INITIAL_WORDS);
  #count = 0;
  /** Words that {@link #process} was made from. */
  #length = 0;

  begin(): void {
    this.#count = 0;
  }

  /** @param word the lower 32 bits of what the description depends on */
  put(word: number): void {
    const at = this.#count++;
    if (at === this.#words.length) this.#grow();
    if (this.#words[at] === word) return;
    this.#words[at] = word;
    this.#process = undefined;
  }

  /** The process that these very words made, if they did. */
  end(): Process | undefined {
    if (this.#count !== this.#length) this.#process = undefined;
    return this.#process;
  }

  /** @param process made from the words that were told */
  keep(process: Process): Process {
    this.#length = this.#count;
    this.#process = process;
    return process;
  }

  #grow(): void {
    const words = new Int32Array(2 * this.#words.length);
    words.set(this.#words);
    this.#words = words;
  }
}
