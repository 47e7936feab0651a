import { setTimeout as sleep } from 'node:timers/promises';
import type { NatsConnection } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import type { TickFleetPolicy } from '../tick/tick.ts';
import type { CachedPolicy, PolicyCache } from './policy-cache.ts';
import { isNotMade, PolicyStore } from './policy-store.ts';
import type { StoredPolicy } from './stored-policy.ts';

/** Between two attempts to reach the store, in ms, and a part that is drawn by lot: a fleet has many hosts. */
const RETRY_MS = 10_000;
const JITTER_MS = 5_000;

/** Puts a policy in force here. @throws why this host cannot do it; then the one before stays */
export type ApplyPolicy = (policy: StoredPolicy) => Promise<void>;

/** Keeps this host at the fleet's latest policy that it can use. */
export class PolicyFollower {
  readonly #cache: PolicyCache;
  readonly #log: Logger;
  #apply: ApplyPolicy | undefined;
  #connection: NatsConnection | undefined;
  #running: AbortController | undefined;
  #inForce: CachedPolicy | undefined;
  #refused: { readonly revision: number; readonly why: string } | undefined;
  /** The store has told its latest since this connection was made. */
  #isCurrent = false;
  #error: string | undefined;

  constructor(cache: PolicyCache, log: Logger) {
    this.#cache = cache;
    this.#log = log;
    this.#inForce = cache.read();
  }

  /** At first the one that was in force before this start. */
  get inForce(): CachedPolicy | undefined {
    return this.#inForce;
  }

  get state(): TickFleetPolicy {
    const { revision, by, at, comment, confirmedAt } = this.#inForce ?? {};
    return {
      ...(revision !== undefined && { revision, by: by!, at: at!, comment: comment! }),
      isCurrent: this.#isCurrent && this.#refused === undefined,
      ...(confirmedAt !== undefined && !this.#isCurrent && { ageMs: Date.now() - Date.parse(confirmedAt) }),
      ...(this.#refused && { refused: this.#refused }),
      ...(this.#error !== undefined && { error: this.#error }),
    };
  }

  follow(apply: ApplyPolicy): void {
    this.#apply = apply;
    if (this.#connection !== undefined && this.#running === undefined) this.up(this.#connection);
  }

  /** The connection is there, or there again: what the store said before may be old. */
  up(connection: NatsConnection): void {
    this.#connection = connection;
    this.down();
    if (this.#apply === undefined) return;
    this.#running = new AbortController();
    void this.#run(connection, this.#running.signal);
  }

  down(): void {
    this.#running?.abort();
    this.#running = undefined;
    this.#isCurrent = false;
  }

  async #run(connection: NatsConnection, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        for await (const found of new PolicyStore(connection).follow()) {
          if (signal.aborted) return;
          this.#error = undefined;
          await this.#take(found);
          this.#isCurrent = !signal.aborted;
        }
      } catch (error) {
        const message = isNotMade(error as Error) ? 'no policy has been set' : (error as Error).message;
        if (this.#error !== message && !signal.aborted)
          this.#log.info(
            { error: message },
            'the fleet has no policy in its store, or this host cannot read it',
          );
        this.#error = message;
      }
      const pause = RETRY_MS + Math.random() * JITTER_MS;
      await sleep(pause, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  async #take(found: StoredPolicy | { readonly unreadable: number }): Promise<void> {
    if ('unreadable' in found) return this.#refuse(found.unreadable, 'no policy that this version reads');
    const { revision, policy } = found;
    const isNew = this.#inForce?.revision !== revision || this.#inForce.policy !== policy;
    try {
      if (isNew) await this.#apply!(found);
    } catch (error) {
      return this.#refuse(revision, (error as Error).message);
    }
    this.#refused = undefined;
    const now = new Date();
    this.#inForce = { ...found, confirmedAt: now.toISOString() };
    if (isNew)
      this.#log.info({ revision, by: found.by, comment: found.comment }, 'policy of the fleet in force');
    try {
      this.#cache.write(found, now);
    } catch (error) {
      this.#log.warn(
        { err: error },
        'the policy of the fleet cannot be kept: a start without its store would lack it',
      );
    }
  }

  #refuse(revision: number, why: string): void {
    this.#refused = { revision, why };
    const kept = this.#inForce?.revision ?? 'none';
    this.#log.error({ revision, why, kept }, 'this policy of the fleet cannot be used: the one before stays');
  }
}
