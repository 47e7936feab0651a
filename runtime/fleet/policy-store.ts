import { type KV, type KvEntry, Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { DomschedError } from '../error.ts';
import { decodePolicy, encodePolicy, type StoredPolicy } from './stored-policy.ts';

const BUCKET = 'domsched-policy';
const KEY = 'policy';
/** As many revisions as a bucket may keep. */
const HISTORY = 64;

/** The fleet's policy in the server's store: who may write it is the server's business. */
export class PolicyStore {
  readonly #connection: NatsConnection;

  constructor(connection: NatsConnection) {
    this.#connection = connection;
  }

  /**
   * @param revision the latest if there is none
   * @returns undefined if there is none
   * @throws DomschedError `host-unreachable` if the store does not answer; `protocol` for an entry that is no policy
   */
  async get(revision?: number): Promise<StoredPolicy | undefined> {
    return this.#askIfMade(undefined, async () => {
      const entry = await (await this.#open()).get(KEY, revision === undefined ? undefined : { revision });
      return entry === null || entry.operation !== 'PUT' ? undefined : read(entry);
    });
  }

  /**
   * The revision that the next one replaces, whatever it is; 0 for none.
   * @throws DomschedError `host-unreachable` if the store does not answer; `refused` if it does not let us write
   */
  async latest(): Promise<number> {
    return this.#ask(async () => (await (await this.#create()).get(KEY))?.revision ?? 0);
  }

  /** All revisions that are kept, the latest first. */
  async history(): Promise<StoredPolicy[]> {
    return this.#askIfMade([], async () => {
      const found: StoredPolicy[] = [];
      for await (const entry of await (await this.#open()).history({ key: KEY })) {
        if (entry.operation === 'PUT') found.push(read(entry));
        if (entry.delta === 0) break;
      }
      return found.reverse();
    });
  }

  /**
   * Makes a policy the fleet's.
   * @param after the revision that it replaces, 0 for none: another one in between is not overwritten
   * @returns its revision
   * @throws DomschedError `refused` if the store has another revision by now, or does not let us write
   */
  async set(policy: Omit<StoredPolicy, 'revision' | 'at'>, after: number): Promise<number> {
    return this.#ask(async () => {
      const kv = await this.#create();
      return kv.put(KEY, encodePolicy(policy), { previousSeq: after });
    });
  }

  /** Every revision from the latest on, until the connection ends. Undefined for an entry that is no policy. */
  async *follow(): AsyncGenerator<StoredPolicy | { readonly unreadable: number }> {
    for await (const entry of await (await this.#open()).watch({ key: KEY })) {
      if (entry.operation !== 'PUT') continue;
      yield decodePolicy(entry.value, entry.revision, entry.created) ?? { unreadable: entry.revision };
    }
  }

  #open(): Promise<KV> {
    return new Kvm(this.#connection).open(BUCKET);
  }

  /** Opens it, too, if it is there. */
  #create(): Promise<KV> {
    return new Kvm(this.#connection).create(BUCKET, { history: HISTORY });
  }

  /** @param otherwise of a store that nobody has written to yet */
  async #askIfMade<T>(otherwise: T, work: () => Promise<T>): Promise<T> {
    return this.#ask(() =>
      work().catch((error: Error) => {
        if (isNotMade(error)) return otherwise;
        throw error;
      }),
    );
  }

  async #ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      if (cause instanceof DomschedError) throw cause;
      throw storeError(cause as Error);
    }
  }
}

function read(entry: KvEntry): StoredPolicy {
  const found = decodePolicy(entry.value, entry.revision, entry.created);
  if (found !== undefined) return found;
  const why = `revision ${entry.revision} of the fleet's policy is none that this version reads`;
  throw new DomschedError('protocol', why, { revision: entry.revision });
}

/** Whether there is no store for policies, as none has been set yet. */
export function isNotMade({ message }: Error): boolean {
  return /stream not found/i.test(message);
}

function storeError(cause: Error): DomschedError {
  const { message } = cause;
  if (/wrong last sequence/i.test(message))
    return new DomschedError('refused', 'somebody else has set another policy meanwhile', {}, { cause });
  if (/permission/i.test(message))
    return new DomschedError('refused', `the fleet's server does not allow it: ${message}`, {}, { cause });
  return new DomschedError('host-unreachable', `the fleet's store: ${message}`, {}, { cause });
}
