import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { writeDurably } from '../durable-write.ts';
import { DomschedError } from '../error.ts';
import { JournalHealth, journalFailed } from '../journal-health.ts';
import { makePrivate } from '../runtime-directory.ts';

/** Where records are kept, here or by another process. */
export type RecordStore<T> = Pick<Records<T>, 'add' | 'remove' | 'list'>;

/**
 * Records on disk, one file each. A file is complete or absent, even if we are killed.
 *
 * A record is written synchronously: the domain is paused meanwhile, and each turn of the event loop that a busy host
 * delays would lengthen its pause.
 */
export class Records<T> {
  readonly directory: string;
  readonly #nameOf: (record: T) => string;
  readonly #parse: (json: unknown) => Promise<T>;
  readonly #health: JournalHealth;

  /**
   * @param nameOf gives a unique key of a record, fit for a file name
   * @param parse throws for a file that is not a valid record
   */
  constructor(
    directory: string,
    nameOf: (record: T) => string,
    parse: (json: unknown) => Promise<T>,
    health = new JournalHealth(),
  ) {
    this.directory = directory;
    this.#nameOf = nameOf;
    this.#parse = parse;
    this.#health = health;
  }

  /**
   * Resolves when the record is on disk.
   * @throws DomschedError `journal-failed`, `refused` as {@link makePrivate}; then the edit must not happen
   */
  async add(record: T): Promise<void> {
    try {
      this.#write(record);
    } catch (error) {
      throw this.#health.failed(this.directory, error);
    }
    this.#health.works(this.directory);
  }

  #write(record: T): void {
    makePrivate(this.directory);
    const file = this.#file(record);
    // The name is unique even within this process, which may write the same record twice at once.
    const temporary = `${file}.${process.pid}.${randomBytes(4).toString('hex')}.new`;
    try {
      writeDurably(temporary, 'w', `${JSON.stringify(record)}\n`);
      renameSync(temporary, file);
      syncDirectory(this.directory);
    } catch (error) {
      removeIfPossible(temporary);
      throw error;
    }
  }

  /** @throws DomschedError `journal-failed` */
  async remove(record: T): Promise<void> {
    const file = this.#file(record);
    try {
      await rm(file, { force: true });
    } catch (cause) {
      throw journalFailed(this.directory, `the record ${file} of what is over cannot be removed`, cause);
    }
  }

  /** @throws DomschedError `journal-failed`; `config-invalid` for a file that is not a valid record */
  async list(): Promise<T[]> {
    try {
      return await this.#list();
    } catch (error) {
      throw journalFailed(this.directory, `the records in ${this.directory} cannot be read`, error);
    }
  }

  async #list(): Promise<T[]> {
    const names = await readdir(this.directory).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    const records: T[] = [];
    for (const name of names)
      if (isLeftOver(name)) await rm(path.join(this.directory, name), { force: true }).catch(() => undefined);
    for (const name of names.filter((found) => found.endsWith('.json')).sort()) {
      const file = path.join(this.directory, name);
      const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
        // Another process removed its record in the meantime.
        if (error.code === 'ENOENT') return undefined;
        throw error;
      });
      if (text !== undefined) records.push(await this.#read(text, file));
    }
    return records;
  }

  async #read(text: string, file: string): Promise<T> {
    try {
      return await this.#parse(JSON.parse(text));
    } catch (cause) {
      throw new DomschedError(
        'config-invalid',
        `${file} is no record of ours; look at it, and remove it if nothing is held`,
        { file },
        { cause },
      );
    }
  }

  #file(record: T): string {
    return path.join(this.directory, `${this.#nameOf(record)}.json`);
  }
}

/** Whether a process was killed while it wrote this file. */
function isLeftOver(name: string): boolean {
  const [, pid] = /\.json\.(\d+)(?:\.[0-9a-f]+)?\.new$/.exec(name) ?? [];
  return pid !== undefined && Number(pid) !== process.pid && !existsSync(`/proc/${pid}`);
}

function syncDirectory(directory: string): void {
  const handle = openSync(directory, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** What failed before explains more. */
function removeIfPossible(file: string): void {
  try {
    rmSync(file, { force: true });
  } catch {
    // Left over, as after a death: the next reading removes it.
  }
}
