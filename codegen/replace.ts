import { randomBytes } from 'node:crypto';
import { renameSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import process from 'node:process';
import { ExtractError } from '../extractor/error.ts';

/** Folders in the making and folders being replaced: `.new~<pid>~<folder>`, `.old~<pid>~<folder>`. */
const TEMPORARY = /^\.(new|old)~([0-9]+)~(.+)$/;

/**
 * Makes `parent/folder` hold exactly `files` (names to text), or leaves it as it was: the new folder is written
 * beside the old one, then takes its place.
 *
 * @returns whether anything changed
 * @throws ExtractError `no-space`, `output-failed`, `interrupted`
 */
export async function replaceFolder(
  parent: string,
  folder: string,
  files: ReadonlyMap<string, string>,
  signal?: AbortSignal,
): Promise<boolean> {
  const target = join(parent, folder);
  return writing(target, async () => {
    await mkdir(parent, { recursive: true });
    const before = await readdir(target).catch(() => [] as string[]);
    if (await unchanged(target, before, files)) return false;
    const fresh = join(parent, `.new~${process.pid}~${folder}`);
    const old = join(parent, `.old~${process.pid}~${folder}`);
    try {
      await rm(fresh, { recursive: true, force: true });
      await mkdir(fresh);
      for (const [name, text] of files) {
        signal?.throwIfAborted();
        await writeFile(join(fresh, name), text, { flag: 'wx' });
      }
      signal?.throwIfAborted();
      swap(fresh, target, old);
    } finally {
      await rm(fresh, { recursive: true, force: true });
      await rm(old, { recursive: true, force: true });
    }
    return true;
  });
}

/** Writes one file whole or not at all. @throws ExtractError as {@link replaceFolder} */
export async function replaceFile(path: string, text: string): Promise<void> {
  const fresh = join(dirname(path), `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}`);
  await writing(path, async () => {
    try {
      await writeFile(fresh, text, { flag: 'wx' });
      await rename(fresh, path);
    } finally {
      await rm(fresh, { force: true });
    }
  });
}

/**
 * Directories cannot be renamed over one another, so there is a moment between two system calls without a folder.
 * A process killed in it leaves `.old~`, which {@link recover} puts back.
 */
function swap(fresh: string, target: string, old: string): void {
  try {
    renameSync(target, old);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  try {
    renameSync(fresh, target);
  } catch (error) {
    renameSync(old, target);
    throw error;
  }
}

/** Puts back or clears away what a killed process left. */
export async function recover(parent: string): Promise<void> {
  const names = await readdir(parent).catch((error: NodeJS.ErrnoException): string[] => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    const [, state, pid, folder] = TEMPORARY.exec(name) ?? [];
    if (state === undefined || alive(Number(pid))) continue;
    if (state === 'old' && !names.includes(folder!)) await rename(join(parent, name), join(parent, folder!));
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

async function unchanged(
  target: string,
  names: string[],
  files: ReadonlyMap<string, string>,
): Promise<boolean> {
  if (names.length !== files.size) return false;
  for (const [name, text] of files) {
    if (!names.includes(name) || (await readFile(join(target, name), 'utf8')) !== text) return false;
  }
  return true;
}

/** Turns what the file system says while `path` is written into our refusals. */
export async function writing<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ExtractError) throw error;
    const { code, name } = error as NodeJS.ErrnoException;
    if (name === 'AbortError') {
      throw new ExtractError('interrupted', `Interrupted; ${path} is as it was.`, { path }, { cause: error });
    }
    if (code === 'ENOSPC' || code === 'EDQUOT') {
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
