import { createHash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { DomschedError } from '../error.ts';

/** One process that we stopped, and all that it takes to find it again. */
export interface HeldRecord {
  /** The `--connect` value that leads to the domain, its id and name. */
  readonly connection: string;
  readonly domain: string;
  readonly name: string;
  /** Of the guest's kernel: a guest that was restarted into another one has lost what we held. */
  readonly buildId: string | null;
  readonly pid: number;
  readonly comm: string;
  /** Of its task_struct, as `0x…`. */
  readonly address: string;
  /** Since the guest's boot, in ns: with the address it tells the process from a later one of that pid. */
  readonly startTimeNs: number;
  /** When it was stopped, ISO 8601. */
  readonly since: string;
}

/** Where held processes are written down: for root beside QEMU's sockets, else with the user's own run-time files. */
export function journalDirectory(env: NodeJS.ProcessEnv = process.env): string {
  if (process.getuid?.() === 0 || env.XDG_RUNTIME_DIR === undefined) return '/run/domsched/held';
  return path.join(env.XDG_RUNTIME_DIR, 'domsched', 'held');
}

/**
 * What we hold, on disk: a file per process, there before the first byte of its hold is written and gone only after
 * its release. A crash in between leaves a record too many, never one too few.
 */
export class Journal {
  readonly directory: string;

  constructor(directory = journalDirectory()) {
    this.directory = directory;
  }

  /** Resolves when the record is on disk. @throws what the file system throws: then nothing may be held */
  async add(record: HeldRecord): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    const file = this.#file(record);
    const temporary = `${file}.${process.pid}.new`;
    try {
      await writeDurably(temporary, `${JSON.stringify(record)}\n`);
      await rename(temporary, file);
      await syncDirectory(this.directory);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  }

  async remove(record: HeldRecord): Promise<void> {
    await rm(this.#file(record), { force: true });
  }

  /** @throws DomschedError `config-invalid` for a file that is none of ours */
  async list(): Promise<HeldRecord[]> {
    const names = await readdir(this.directory).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    const records: HeldRecord[] = [];
    for (const name of names.filter((found) => found.endsWith('.json')).sort()) {
      const file = path.join(this.directory, name);
      records.push(await parse(await readFile(file, 'utf8'), file));
    }
    return records;
  }

  #file({ domain, pid, startTimeNs, address }: HeldRecord): string {
    const key = createHash('sha256')
      .update(JSON.stringify([domain, pid, startTimeNs, address]))
      .digest('hex');
    return path.join(this.directory, `${key.slice(0, 32)}.json`);
  }
}

async function parse(text: string, file: string): Promise<HeldRecord> {
  // Most often nothing is held, and then nobody has to wait for the validation library.
  const { HELD_RECORD } = await import('./journal-schema.ts');
  try {
    return HELD_RECORD.parse(JSON.parse(text));
  } catch (cause) {
    throw new DomschedError(
      'config-invalid',
      `${file} is no record of a held process; look at it, and remove it if nothing is held`,
      { file },
      { cause },
    );
  }
}

async function writeDurably(file: string, text: string): Promise<void> {
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
