import { DomschedError } from '../error.ts';
import type { DomainEvent, DomainState, Pausable } from './types.ts';

/** What domains have in common that run while we look at them. */
export abstract class LiveDomain implements AsyncDisposable {
  abstract readonly pause: Pausable;
  readonly #listeners = new Set<(event: DomainEvent) => void>();
  #generation = 0;

  /** See `Domain.generation`. */
  get generation(): number {
    return this.#generation;
  }

  /** See `Domain.tick`. */
  tick(): void {
    if (this.pause.depth > 0) return;
    this.mayHaveRun();
    this.lookAgain?.();
  }

  /** See `Domain.onEvent`. */
  onEvent(listener: (event: DomainEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  abstract close(): Promise<void>;

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Looks, at the start of a look at a guest that may run, whether its memory is still where it was. */
  protected lookAgain?(): void;

  /** What was read before says nothing about the guest any more. */
  protected mayHaveRun(): void {
    this.#generation += 1;
  }

  protected emit(event: DomainEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  protected forgetListeners(): void {
    this.#listeners.clear();
  }
}

/** What somebody else says of a domain, who has ended with it. */
export async function stateUnlessGone(ask: () => Promise<DomainState>): Promise<DomainState> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof DomschedError && error.code === 'domain-gone') return 'gone';
    throw error;
  }
}
