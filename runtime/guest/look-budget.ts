import process from 'node:process';
import { DomschedError } from '../error.ts';

/** Limits on the cost of one guest to those who look at all of them. */
export interface LookLimits {
  /** CPU time of one look, in ms. */
  readonly lookMs: number;
  /** Copies of the guest's objects, in bytes. */
  readonly bytes: number;
}

/**
 * A look at 4,000 threads takes some 20 ms. The first look at 30,000 takes some 400, so it happens in parts: each
 * begins with what the last one found. 48 MiB hold the tasks of a guest with 100,000 threads.
 */
export const LOOK_LIMITS: LookLimits = { lookMs: 250, bytes: 48 * 2 ** 20 };

/** What is left for a look. A guest chooses how many objects it has and how they are linked, and so the cost. */
export class LookBudget {
  readonly #limits: LookLimits;
  readonly #name: string;
  readonly #now: () => number;
  readonly #wall: () => number;
  readonly #end: number;
  readonly #wallEnd: number;

  /**
   * @param now clock in ms that the limit is of
   * @param wall one that is quicker to read and never slower than that
   */
  constructor(
    limits: LookLimits,
    name: string,
    now: () => number = ownTimeMs,
    wall: () => number = () => performance.now(),
  ) {
    this.#limits = limits;
    this.#name = name;
    this.#now = now;
    this.#wall = wall;
    this.#wallEnd = wall() + limits.lookMs;
    this.#end = now() + limits.lookMs;
  }

  /** @throws DomschedError `over-budget` */
  checkTime(): void {
    if (this.#wall() <= this.#wallEnd || this.#now() <= this.#end) return;
    throw overBudget(this.#name, `a look at it takes more than ${this.#limits.lookMs} ms`);
  }

  /** @throws DomschedError `over-budget` */
  checkBytes(bytes: number): void {
    if (bytes <= this.#limits.bytes) return;
    const mib = Math.round(this.#limits.bytes / 2 ** 20);
    throw overBudget(this.#name, `what its kernel links takes more than ${mib} MiB`);
  }
}

/** CPU time of this thread in ms, because other load on the host is not the guest's fault. */
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
