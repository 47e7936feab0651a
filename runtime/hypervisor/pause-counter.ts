import { DomschedError } from '../error.ts';
import type { Pausable, PauseGuard, PauseProof, PauseUse } from './types.ts';

/** What a backend must offer so that its pauses can be counted. */
export interface PauseBackend {
  /** Stops the domain, in the call if nothing has to be awaited. @returns whether somebody else had already paused it */
  stop(use: PauseUse): { foundPaused: boolean } | Promise<{ foundPaused: boolean }>;
  /** Asks the hypervisor whether it stands still, see {@link PauseGuard.prove}. All earlier events are heard first. */
  prove(): Promise<PauseProof>;
  /** See {@link PauseGuard.isQuiet}. */
  isQuiet(): boolean;
  /** Resumes it. Only called when {@link stop} found it running, unless the hypervisor {@link counts}. */
  resume(): void | Promise<void>;
  /** The hypervisor itself counts pauses: ours is added even if the domain was found paused, and given back too. */
  readonly counts?: boolean;
  /**
   * {@link stop} asks somebody else and waits for the answer: it is begun while {@link Pausable.acquire} is called, so that
   * whoever calls can go on with other work meanwhile.
   */
  readonly asks?: true;
  /** See {@link Pausable.endsWithUs}. */
  readonly endsWithUs?: true;
  /** See {@link Pausable.way}. */
  readonly way?: string;
  /** Says whether the domain must stay paused if our process dies now. See {@link PauseGuard.keepOnDeath}. */
  keepOnDeath?(keep: boolean, inParts: boolean): void;
  /** The domain must stay paused whatever happens to us. Without this, {@link keepOnDeath} is enough. */
  abandon?(): void;
}

/**
 * Counts pauses of one domain: the first stops it, the last resumes it unless it was found paused. Overlapping calls
 * run one after the other.
 */
export class PauseCounter implements Pausable {
  readonly #backend: PauseBackend;
  #depth = 0;
  #foundPaused = false;
  /** Changes when the count starts anew; guards of an older session have nothing to give back. */
  #session = 0;
  /** Changes when guards no longer prove that the guest stood still. */
  #epoch = 0;
  #lane: Promise<unknown> = Promise.resolve();
  /** Steps that are under way or wait in the lane. */
  #steps = 0;

  declare readonly endsWithUs?: true;
  declare readonly way?: string;

  constructor(backend: PauseBackend) {
    this.#backend = backend;
    if (backend.endsWithUs) this.endsWithUs = true;
    if (backend.way !== undefined) this.way = backend.way;
  }

  get depth(): number {
    return this.#depth;
  }

  /** Whether the domain is stopped under a guard of ours. */
  get held(): boolean {
    return this.#depth > 0;
  }

  acquire(use: PauseUse = 'edit'): Promise<PauseGuard> {
    return this.#serialise(() => {
      if (this.#depth > 0) return this.#enter(this.#foundPaused);
      const stopped = this.#backend.stop(use);
      if (stopped instanceof Promise) return stopped.then(({ foundPaused }) => this.#enter(foundPaused));
      return this.#enter(stopped.foundPaused);
    }, this.#backend.asks === true);
  }

  /** Somebody else resumed or ended the domain: no guard holds, and none has anything to resume. */
  dissolve(): void {
    this.#session += 1;
    this.#epoch += 1;
    this.#depth = 0;
  }

  /** Somebody else reset the domain: no guard is proof any longer, but we must still resume it. */
  invalidate(): void {
    this.#epoch += 1;
  }

  /** Gives all pauses back at once. */
  releaseAll(): Promise<void> {
    return this.#serialise(() => {
      if (this.#depth === 0) return;
      this.dissolve();
      if (this.#isOurs(this.#foundPaused)) return this.#backend.resume();
    }, true);
  }

  #enter(foundPaused: boolean): PauseGuard {
    this.#foundPaused = foundPaused;
    this.#depth += 1;
    return new Guard(this, { foundPaused, session: this.#session, epoch: this.#epoch });
  }

  /** Whether the count has not started anew since, and the guest stood still. For {@link Guard}, as the following are. */
  isCurrent(session: number, epoch: number): boolean {
    return this.#epoch === epoch && this.#session === session;
  }

  prove(): Promise<PauseProof> {
    return this.#backend.prove();
  }

  isQuiet(): boolean {
    return this.#backend.isQuiet();
  }

  keepOnDeath(foundPaused: boolean, keep: boolean, inParts: boolean): void {
    if (this.#isOurs(foundPaused)) this.#backend.keepOnDeath?.(keep, inParts);
  }

  /** Gives one pause back. */
  release(session: number, foundPaused: boolean): Promise<void> {
    return this.#serialise(() => {
      if (this.#session !== session) return;
      this.#depth -= 1;
      if (this.#depth === 0 && this.#isOurs(foundPaused)) return this.#backend.resume();
    }, true);
  }

  abandon(session: number): void {
    if (this.#session !== session) return;
    if (this.#backend.abandon) this.#backend.abandon();
    else this.#backend.keepOnDeath?.(true, false);
    this.dissolve();
  }

  /** Whether there is a pause of ours to give back. */
  #isOurs(foundPaused: boolean): boolean {
    return !foundPaused || this.#backend.counts === true;
  }

  /**
   * Runs a step when all before it are done.
   * @param atOnce in this call if none is under way; otherwise what the caller goes on with in this turn comes first
   */
  #serialise<T>(step: () => T | Promise<T>, atOnce: boolean): Promise<T> {
    const take = () => this.#take(step);
    const isFirst = atOnce && this.#steps === 0;
    this.#steps += 1;
    if (!isFirst) return this.#occupy(this.#lane.then(take, take));
    try {
      const result = take();
      return result instanceof Promise ? this.#occupy(result) : Promise.resolve(result);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Who comes next waits for this. */
  #occupy<T>(run: Promise<T>): Promise<T> {
    this.#lane = run;
    return run;
  }

  #take<T>(step: () => T | Promise<T>): T | Promise<T> {
    let result: T | Promise<T> | undefined;
    try {
      result = step();
      return result;
    } finally {
      const end = () => {
        this.#steps -= 1;
      };
      if (result instanceof Promise) result.then(end, end);
      else end();
    }
  }
}

/**
 * One of a counter's pauses. A class, because making an object with methods of its own took 70 µs more in an emulated dom0,
 * as long as a hypercall.
 */
class Guard implements PauseGuard {
  readonly foundPaused: boolean;
  declare readonly endsWithUs?: true;
  readonly #counter: PauseCounter;
  readonly #session: number;
  readonly #epoch: number;
  #released = false;

  constructor(
    counter: PauseCounter,
    began: { readonly foundPaused: boolean; readonly session: number; readonly epoch: number },
  ) {
    this.#counter = counter;
    this.foundPaused = began.foundPaused;
    this.#session = began.session;
    this.#epoch = began.epoch;
    if (counter.endsWithUs) this.endsWithUs = true;
  }

  get valid(): boolean {
    return !this.#released && this.#counter.isCurrent(this.#session, this.#epoch);
  }

  isQuiet(): boolean {
    return this.valid && this.#counter.isQuiet();
  }

  async prove(): Promise<PauseProof> {
    const proof = await this.#counter.prove();
    if (this.valid) return proof;
    throw new DomschedError('edit-conflict', 'somebody resumed, woke up or reset the domain meanwhile');
  }

  keepOnDeath(keep: boolean, inParts = false): void {
    if (!this.#released) this.#counter.keepOnDeath(this.foundPaused, keep, inParts);
  }

  abandon(): void {
    if (!this.#released) this.#counter.abandon(this.#session);
  }

  release(): Promise<void> {
    if (this.#released) return Promise.resolve();
    this.#released = true;
    return this.#counter.release(this.#session, this.foundPaused);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}
