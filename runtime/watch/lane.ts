/** Runs tasks in order, at most a given number at a time. */
export class Lane {
  readonly #width: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #idle: (() => void)[] = [];

  constructor(width: number) {
    this.#width = width;
  }

  get busy(): boolean {
    return this.#running > 0 || this.#waiting.length > 0;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#width) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      // The slot passes to the next waiting task.
      if (next !== undefined) next();
      else this.#running -= 1;
      if (!this.busy) for (const resolve of this.#idle.splice(0)) resolve();
    }
  }

  /** Resolves when no task runs or waits. */
  idle(): Promise<void> {
    return this.busy ? new Promise((resolve) => this.#idle.push(resolve)) : Promise.resolve();
  }
}
