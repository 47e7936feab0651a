import { randomBytes } from 'node:crypto';
import { copyFileSync, linkSync, mkdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import process from 'node:process';
import { ExtractError } from '../extractor/error.ts';

/** New and replaced files in a transition: `.new~<pid>.<random>~<name>`, `.old~<pid>.<random>~<name>`. */
const TEMPORARY = /^\.(new|old)~([0-9]+)(?:\.[0-9a-f]+)?~(.+)$/;

/** Paths of this process's temporary files in use. */
const inUse = new Set<string>();

interface Staged {
  target: string;
  fresh: string;
  old: string;
  kind: 'folder' | 'file';
  state: 'staged' | 'committed' | 'undone';
}

/**
 * Replaces folders and files all together or not at all. Each is written in full beside its place, and they are moved
 * only when all are written. Moving takes no space, so a full disk is noticed before anything changes. Disposing
 * removes what was not committed.
 */
export class Replacement implements Disposable {
  readonly #staged: Staged[] = [];
  readonly #foldersMade: string[] = [];

  /**
   * Stages `target` to contain exactly `files` (names to text).
   * @returns false if it already does; then nothing is staged
   * @throws ExtractError `no-space`, `output-failed`, `interrupted`
   */
  async folder(target: string, files: ReadonlyMap<string, string>, signal?: AbortSignal): Promise<boolean> {
    return writing(target, async () => {
      this.#makeFolder(dirname(target));
      if (await unchanged(target, files)) return false;
      const { fresh } = this.#stage(target, 'folder');
      await mkdir(fresh);
      for (const [name, text] of files) {
        signal?.throwIfAborted();
        await writeFile(join(fresh, name), text, { flag: 'wx' });
      }
      return true;
    });
  }

  /** Stages one file. @throws ExtractError as {@link folder} */
  async file(target: string, text: string, signal?: AbortSignal): Promise<void> {
    await writing(target, async () => {
      signal?.throwIfAborted();
      this.#makeFolder(dirname(target));
      const { fresh, old } = this.#stage(target, 'file');
      await writeFile(fresh, text, { flag: 'wx' });
      keep(target, old);
    });
  }

  /**
   * Moves everything to its place in staging order, or nothing. Synchronous, so that no signal handler runs in between.
   * @throws ExtractError `output-failed`, `interrupted`
   */
  async commit(signal?: AbortSignal): Promise<void> {
    await writing(this.#staged[0]?.target ?? '', async () => {
      signal?.throwIfAborted();
      try {
        for (const item of this.#staged) {
          if (item.kind === 'folder') swap(item);
          else renameSync(item.fresh, item.target);
          item.state = 'committed';
        }
      } catch (error) {
        for (const item of this.#staged.toReversed()) if (item.state === 'committed') undo(item);
        throw error;
      }
      this.#foldersMade.length = 0;
    });
  }

  [Symbol.dispose](): void {
    for (const { fresh, old } of this.#staged) {
      for (const path of [fresh, old]) {
        rmSync(path, { recursive: true, force: true });
        inUse.delete(path);
      }
    }
    // Deepest first; a folder that others have put something into stays.
    for (const folder of this.#foldersMade.toReversed()) {
      try {
        rmdirSync(folder);
      } catch {}
    }
  }

  #stage(target: string, kind: Staged['kind']): Staged {
    const own = `${process.pid}.${randomBytes(4).toString('hex')}`;
    const beside = (state: string) => join(dirname(target), `.${state}~${own}~${basename(target)}`);
    const item: Staged = { target, fresh: beside('new'), old: beside('old'), kind, state: 'staged' };
    this.#staged.push(item);
    inUse.add(item.fresh).add(item.old);
    return item;
  }

  #makeFolder(path: string): void {
    const first = mkdirSync(path, { recursive: true });
    if (first === undefined) return;
    const made: string[] = [];
    for (let folder = path; folder.length >= first.length; folder = dirname(folder)) made.unshift(folder);
    this.#foldersMade.push(...made);
  }
}

/** Gives a file that is about to be replaced a second name, if it exists. */
function keep(target: string, old: string): void {
  try {
    linkSync(target, old);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    // Not every file system has hard links.
    copyFileSync(target, old);
  }
}

/**
 * A directory cannot be renamed over another one, so the folder is missing between two system calls. A process killed
 * in that moment leaves `.old~`, which {@link recover} restores.
 */
function swap({ fresh, target, old }: Staged): void {
  renameIfThere(target, old);
  try {
    renameSync(fresh, target);
  } catch (error) {
    renameIfThere(old, target);
    throw error;
  }
}

function undo(item: Staged): void {
  if (item.kind === 'folder') renameSync(item.target, item.fresh);
  if (!renameIfThere(item.old, item.target) && item.kind === 'file') rmSync(item.target, { force: true });
  item.state = 'undone';
}

function renameIfThere(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return false;
  }
}

/** Restores or removes what a killed process left. */
export async function recover(parent: string): Promise<void> {
  const names = await readdir(parent).catch((error: NodeJS.ErrnoException): string[] => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    const [, state, pid, target] = TEMPORARY.exec(name) ?? [];
    if (state === undefined || alive(Number(pid)) || inUse.has(join(parent, name))) continue;
    if (state === 'old' && !names.includes(target!)) await rename(join(parent, name), join(parent, target!));
    else await rm(join(parent, name), { recursive: true, force: true });
  }
}

function alive(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function unchanged(target: string, files: ReadonlyMap<string, string>): Promise<boolean> {
  const names = await readdir(target).catch(() => [] as string[]);
  if (names.length !== files.size) return false;
  for (const [name, text] of files) {
    if (!names.includes(name) || (await readFile(join(target, name), 'utf8')) !== text) return false;
  }
  return true;
}

/** Converts file-system errors while writing `path` to ours. */
export async function writing<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ExtractError) throw error;
    const { code, name } = error as NodeJS.ErrnoException;
    if (name === 'AbortError') {
      throw new ExtractError('interrupted', `Interrupted; ${path} is as it was.`, { path }, { cause: error });
    }
    if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
      throw new ExtractError(
        'no-space',
        `No space left to write ${path}; it is as it was. Free some and try again.`,
        { path },
        { cause: error },
      );
    }
    if (code === undefined) throw error;
    throw new ExtractError(
      'output-failed',
      `Cannot write ${path} (${code}); it is as it was. Check that the folder is writable, or name another with --out.`,
      { path, code },
      { cause: error },
    );
  }
}
