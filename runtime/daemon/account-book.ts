import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Logger } from 'pino';
import { z } from 'zod';
import { DomschedError } from '../error.ts';
import { makePrivate } from '../runtime-directory.ts';
import type { Journals } from '../surgeon/journaled-surgeon.ts';
import { Records } from '../surgeon/records.ts';

/** How often accounts are written, in ms: a daemon that is killed loses as much. */
const SAVE_MS = 2_000;
/** Accounts that do not change are written again after this time: they shall not seem old. */
const REFRESH_MS = 60_000;
/** Older accounts say nothing about now. */
const VALID_MS = 10 * 60_000;
/** A record of more bytes is not written. */
const MOST_BYTES = 4 * 2 ** 20;

const text = z.string().max(4096);

const BOOK = z.strictObject({
  version: z.literal(1),
  /** This boot of the host, and when it was written. */
  hostBoot: text,
  savedAt: z.iso.datetime(),
  /** Boot of each domain's guest. */
  boots: z.record(text, text),
  policies: z.array(
    z.strictObject({
      name: text,
      configuration: text,
      groups: z.array(
        z.strictObject({ domain: text, name: text, hadMs: z.number().nonnegative(), held: z.boolean() }),
      ),
    }),
  ),
  guarantees: z.array(
    z.strictObject({ domain: text, owedMs: z.number(), slice: z.boolean(), members: z.array(text) }),
  ),
});

/** Accounts on disk, with what tells whether they are still of these guests. */
export type SavedBook = z.output<typeof BOOK>;

/** Keeps accounts beside the journals, so that the next daemon goes on where this one stood. Never fails. */
export class AccountBook {
  readonly #records: Records<SavedBook>;
  readonly #log: Logger;
  readonly #now: () => number;
  #savedMs = -Infinity;
  #saving: Promise<void> | undefined;
  #failed = false;
  #written = { text: '', ms: -Infinity };

  /** @param journals beside which it is written @param now monotonic, in ms */
  constructor({ directory, health }: Pick<Journals, 'directory' | 'health'>, log: Logger, now: () => number) {
    this.#records = new Records(
      path.join(directory, 'accounts'),
      () => 'policies',
      async (json) => BOOK.parse(json),
      health,
    );
    this.#log = log;
    this.#now = now;
  }

  /** What the daemon before left, unless it is too old, of another boot of the host, or not ours. */
  async load(): Promise<SavedBook | undefined> {
    try {
      makePrivate(this.#records.directory);
      const [book] = await this.#records.list();
      if (book === undefined || book.hostBoot !== hostBoot()) return undefined;
      const age = Date.now() - Date.parse(book.savedAt);
      return age >= 0 && age <= VALID_MS ? book : undefined;
    } catch (error) {
      this.#log.warn(
        { err: error },
        'the accounts of the daemon before cannot be read: they start from zero',
      );
      return undefined;
    }
  }

  get isDue(): boolean {
    return this.#saving === undefined && this.#now() - this.#savedMs >= SAVE_MS;
  }

  /** Writes the accounts. Without room for them nothing else changes. */
  save(accounts: Pick<SavedBook, 'boots' | 'policies' | 'guarantees'>): Promise<void> {
    this.#savedMs = this.#now();
    this.#saving = this.#write(accounts).finally(() => {
      this.#saving = undefined;
    });
    return this.#saving;
  }

  /** Resolves when nothing is being written. */
  async settled(): Promise<void> {
    await this.#saving;
  }

  async #write(accounts: Pick<SavedBook, 'boots' | 'policies' | 'guarantees'>): Promise<void> {
    const text = JSON.stringify(accounts);
    const isNew = text !== this.#written.text || this.#now() - this.#written.ms >= REFRESH_MS;
    if (!isNew) return;
    const book: SavedBook = {
      version: 1,
      hostBoot: hostBoot(),
      savedAt: new Date().toISOString(),
      ...accounts,
    };
    try {
      if (text.length > MOST_BYTES) throw new RangeError('they are too many');
      await this.#records.add(book);
      this.#failed = false;
      this.#written = { text, ms: this.#now() };
    } catch (error) {
      // The daemon tells of a disk that takes nothing.
      const isTold = error instanceof DomschedError && error.code === 'journal-failed';
      if (!this.#failed && !isTold)
        this.#log.warn({ err: error }, 'the accounts of shares cannot be written down');
      this.#failed = true;
    }
  }
}

/** Differs from boot to boot of this host. */
function hostBoot(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}
