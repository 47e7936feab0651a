import { lstatSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { makePrivate, writePrivate } from './runtime-directory.ts';

/** Write permission of group and others. */
const OTHERS_WRITE = 0o022;

export interface CacheLimits {
  /** Beyond that the oldest entry is dropped. */
  readonly entries: number;
  /** Bytes of one entry. */
  readonly bytes: number;
}

/**
 * Files with entries that may be lost, in a directory that nobody else may write to: whoever may could have us believe
 * anything. If there cannot be one, nothing is kept and everything works without it.
 */
export class PrivateCache {
  readonly directory: string;
  readonly #limits: CacheLimits;

  constructor(directory: string, limits: CacheLimits) {
    this.directory = directory;
    this.#limits = limits;
  }

  /** Paths of all entries whose name begins so, the latest first. */
  files(start: string): string[] {
    try {
      return readdirSync(this.directory)
        .filter((name) => name.startsWith(start) && name.endsWith('.json'))
        .map((name) => path.join(this.directory, name))
        .map((file) => ({ file, time: lstatSync(file).mtimeMs }))
        .sort((a, b) => b.time - a.time)
        .map(({ file }) => file);
    } catch {
      return [];
    }
  }

  /** Path of the entry with this name, which need not exist. */
  file(name: string): string {
    return path.join(this.directory, `${name}.json`);
  }

  /** What changes with the content of a file; null for one that is not there, not ours alone, or too long. */
  stamp(file: string): string | null {
    try {
      makePrivate(this.directory);
      const found = lstatSync(file);
      const isOurs = found.uid === process.geteuid?.() && (found.mode & OTHERS_WRITE) === 0;
      if (!found.isFile() || !isOurs || found.size > this.#limits.bytes) return null;
      return `${found.size} ${found.mtimeMs} ${found.ino}`;
    } catch {
      return null;
    }
  }

  /** A file's content, whatever that is; null where {@link stamp} is, and where it cannot be read. */
  read(file: string): string | null {
    if (this.stamp(file) === null) return null;
    try {
      return readFileSync(file, 'utf8');
    } catch {
      return null;
    }
  }

  /**
   * Keeps an entry, unless it is too long or the directory cannot be ours alone.
   * @param start names begin so; of those the oldest are dropped
   */
  keep(name: string, text: string, start: string): void {
    if (text.length > this.#limits.bytes) return;
    const file = this.file(name);
    const draft = `${file}.${process.pid}`;
    // What was found out is right even if it cannot be kept (the directory is not ours alone, the disk is full).
    try {
      makePrivate(this.directory);
      try {
        writePrivate(draft, text);
        renameSync(draft, file);
      } finally {
        rmSync(draft, { force: true });
      }
      for (const old of this.files(start).slice(this.#limits.entries)) rmSync(old, { force: true });
    } catch {}
  }
}
