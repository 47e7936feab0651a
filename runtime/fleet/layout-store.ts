import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ObjectStore, Objm } from '@nats-io/obj';
import type { NatsConnection } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import type { LayoutsElsewhere, TakenLayout } from '../guest/learn/elsewhere.ts';
import { MAX_ENTRY_BYTES, type Remembered } from '../guest/learn/remembered.ts';
import { printable } from '../guest/text.ts';
import { decodeEntry } from './layout-entry.ts';

const BUCKET = 'domsched-layouts';
/** Longest wait for all of a layout, in ms; for one answer of the store its library waits 5 s. */
const TAKE_MS = 30_000;
/** After so many that were wrong nothing is taken any more: somebody writes there who should not. */
const MOST_REFUSED = 8;

/**
 * Layouts in the fleet's object store, by their kernels' banners, which differ between two builds as their build-ids do.
 * What is taken is checked here, compared with the bytes of the guest that it is for, and proved on it; and yet whoever may
 * write to the store can have others trust a layout that passes all of that (docs/fleet.md).
 */
export class LayoutStore implements LayoutsElsewhere {
  readonly #connection: () => Promise<NatsConnection | undefined>;
  readonly #log: Logger;
  readonly #host: string;
  /** Digests of objects that were wrong: not looked at again. */
  readonly #refused = new Set<string>();
  /** Kernels whose layout was given, or is there, or cannot be given. */
  readonly #offered = new Set<string>();
  readonly #last = { taken: 0, given: 0, refused: 0 };

  /** @param connection undefined while cut off */
  constructor(host: string, connection: () => Promise<NatsConnection | undefined>, log: Logger) {
    this.#host = host;
    this.#connection = connection;
    this.#log = log;
  }

  /** Layouts since the start. */
  get counts(): { readonly taken: number; readonly given: number; readonly refused: number } {
    return this.#last;
  }

  async take(banner: string): Promise<TakenLayout | undefined> {
    if (this.#last.refused >= MOST_REFUSED) return undefined;
    const late = new AbortController();
    try {
      const limit = sleep(TAKE_MS, undefined, { signal: late.signal, ref: false }).then(() => {
        throw new Error(`no answer within ${TAKE_MS / 1000} s`);
      });
      return await Promise.race([this.#take(banner), limit]);
    } catch (error) {
      this.#log.info({ error: (error as Error).message }, 'no layout can be had from the fleet');
      return undefined;
    } finally {
      late.abort();
    }
  }

  give(entry: Remembered): void {
    const { banner } = entry.layout.kernel;
    if (banner === null || this.#offered.has(banner)) return;
    this.#offered.add(banner);
    this.#give(banner, { ...entry, guest: `${this.#host}/${entry.guest}` }).catch((error: Error) =>
      this.#log.info({ error: error.message }, 'a layout cannot be given to the fleet'),
    );
  }

  async #take(banner: string): Promise<TakenLayout | undefined> {
    const connection = await this.#connection();
    if (connection === undefined) return undefined;
    const store = await new Objm(connection).open(BUCKET);
    const info = await store.info(nameOf(banner));
    if (info === null || info.deleted || this.#refused.has(info.digest)) return undefined;
    const refuse = (why: string) => {
      this.#refused.add(info.digest);
      this.#last.refused++;
      this.#log.warn(
        { why: printable(why), name: info.name },
        'a layout of the fleet is not used: the guest is read instead',
      );
    };
    // A link leads anywhere.
    if (info.options?.link !== undefined) return void refuse('it is a link');
    if (info.size > MAX_ENTRY_BYTES) return void refuse(`it has ${info.size} bytes`);
    const bytes = await read(store, info.name);
    if (typeof bytes === 'string') return void refuse(bytes);
    const entry = await decodeEntry(bytes);
    if (typeof entry === 'string') return void refuse(entry);
    if (entry.layout.kernel.banner !== banner) return void refuse('it is of another kernel');
    return {
      entry,
      refuse,
      accept: () => {
        this.#last.taken++;
        this.#log.info({ from: printable(entry.guest) }, 'a layout was had from the fleet');
      },
    };
  }

  async #give(banner: string, entry: Remembered): Promise<void> {
    const connection = await this.#connection();
    const text = JSON.stringify(entry);
    if (connection === undefined || text.length > MAX_ENTRY_BYTES) return;
    const objects = new Objm(connection);
    const store = await objects.open(BUCKET).catch(() => objects.create(BUCKET));
    const name = nameOf(banner);
    const there = await store.info(name);
    // What others gave stays, unless it was wrong.
    if (there !== null && !there.deleted && !this.#refused.has(there.digest)) return;
    await store.putBlob({ name }, new TextEncoder().encode(text));
    this.#last.given++;
    this.#log.info({ name }, 'a layout was given to the fleet');
  }
}

/** @returns the bytes, or why they are none that can be used */
async function read(store: ObjectStore, name: string): Promise<Uint8Array | string> {
  const found = await store.get(name);
  if (found === null) return 'it is gone';
  // What fails is told by the stream, too; nobody may be left with a rejection.
  found.error.catch(() => {});
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    // What the store says of the size is the word of whoever wrote it.
    for await (const part of found.data) {
      length += part.length;
      if (length > MAX_ENTRY_BYTES) return 'it is longer than it says';
      parts.push(part);
    }
  } catch (error) {
    const { message } = error as Error;
    if (/digests? do(es)? not match/.test(message)) return 'its digest is wrong';
    throw error;
  }
  return Buffer.concat(parts);
}

/** Says by its digest which kernel a layout is of. */
function nameOf(banner: string): string {
  return createHash('sha256').update(banner).digest('hex');
}
