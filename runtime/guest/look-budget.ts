import process from 'node:process';
import { DomschedError } from '../error.ts';

/** What one guest may cost those who look at all of them. */
export interface LookLimits {
  /** Of one look, in ms of CPU time. */
  readonly lookMs: number;
  /** Copies of the guest's objects, in bytes. */
  readonly bytes: number;
}

/**
 * A look at 4,000 threads takes some 20 ms, the first one of 30,000 some 400: that one comes about in parts, since each
 * begins with what the last one found. 48 MiB are the tasks of a guest with 100,000 threads.
 */
export const LOOK_LIMITS: LookLimits = { lookMs: 250, bytes: 48 * 2 ** 20 };

/** What a look may still take. A guest chooses how many objects it has and how they are linked, and thereby what a look costs. */
export class LookBudget {
  readonly #limits: LookLimits;
  readonly #name: string;
  readonly #now: () => number;
  readonly #end: number;

  /** @param now in ms */
  constructor(limits: LookLimits, name: string, now: () => number = ownTimeMs) {
    this.#limits = limits;
    this.#name = name;
    this.#now = now;
    this.#end = now() + limits.lookMs;
  }

  /** @throws DomschedError `over-budget` */
  checkTime(): void {
    if (this.#now() <= this.#end) return;
    throw overBudget(this.#name, `a look at it takes more than ${this.#limits.lookMs} ms`);
  }

  /** @throws DomschedError `over-budget` */
  checkBytes(bytes: number): void {
    if (bytes <= this.#limits.bytes) return;
    const mib = Math.round(this.#limits.bytes / 2 ** 20);
    throw overBudget(this.#name, `what its kernel links takes more than ${mib} MiB`);
  }
}

/** CPU time of this thread: a guest is not to blame for what else runs on its host. */
export function ownTimeMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

export function overBudget(domain: string, why: string): DomschedError {
  return new DomschedError(
    'over-budget',
    `${domain}: ${why}; it is set aside for a while, so that other guests do not wait for it`,
    { domain },
  );
}
