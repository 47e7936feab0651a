import { DomschedError } from '../error.ts';
import type { Pausable, PauseGuard, PauseProof, PauseUse } from './types.ts';

/** What a backend must offer so that its pauses can be counted. */
export interface PauseBackend {
  /** Stops the domain. @returns whether somebody else had already paused it */
  stop(use: PauseUse): Promise<{ foundPaused: boolean }>;
  /** Asks the hypervisor whether it stands still, see {@link PauseGuard.prove}. All earlier events are heard first. */
  prove(): Promise<PauseProof>;
  /** See {@link PauseGuard.isQuiet}. */
  isQuiet(): boolean;
  /** Resumes it. Only called when {@link stop} found it running, unless the hypervisor {@link counts}. */
  resume(): Promise<void>;
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
    return this.#serialise(async () => {
      if (this.#depth === 0) {
        const { foundPaused } = await this.#backend.stop(use);
        this.#foundPaused = foundPaused;
      }
      this.#depth += 1;
      return this.#guard();
    });
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
    return this.#serialise(async () => {
      if (this.#depth === 0) return;
      this.dissolve();
      if (this.#isOurs(this.#foundPaused)) await this.#backend.resume();
    });
  }

  #guard(): PauseGuard {
    const counter = this;
    const session = this.#session;
    const epoch = this.#epoch;
    const foundPaused = this.#foundPaused;
    let released = false;
    const release = async (): Promise<void> => {
      if (released) return;
      released = true;
      await counter.#serialise(async () => {
        if (counter.#session !== session) return;
        counter.#depth -= 1;
        if (counter.#depth === 0 && counter.#isOurs(foundPaused)) await counter.#backend.resume();
      });
    };
    const isValid = () => !released && counter.#epoch === epoch && counter.#session === session;
    return {
      foundPaused,
      ...(this.endsWithUs && { endsWithUs: true as const }),
      get valid() {
        return isValid();
      },
      isQuiet: () => isValid() && counter.#backend.isQuiet(),
      async prove() {
        const proof = await counter.#backend.prove();
        if (isValid()) return proof;
        throw new DomschedError('edit-conflict', 'somebody resumed, woke up or reset the domain meanwhile');
      },
      keepOnDeath(keep, inParts = false) {
        if (!released && counter.#isOurs(foundPaused)) counter.#backend.keepOnDeath?.(keep, inParts);
      },
      abandon() {
        if (released || counter.#session !== session) return;
        if (counter.#backend.abandon) counter.#backend.abandon();
        else counter.#backend.keepOnDeath?.(true, false);
        counter.dissolve();
      },
      release,
      [Symbol.asyncDispose]: release,
    };
  }

  /** Whether there is a pause of ours to give back. */
  #isOurs(foundPaused: boolean): boolean {
    return !foundPaused || this.#backend.counts === true;
  }

  #serialise<T>(step: () => Promise<T>): Promise<T> {
    const isFirst = this.#steps === 0 && this.#backend.asks === true;
    this.#steps += 1;
    const run = isFirst ? step() : this.#lane.then(step);
    const end = () => {
      this.#steps -= 1;
    };
    this.#lane = run.then(end, end);
    return run;
  }
}
