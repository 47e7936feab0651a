import { randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import koffi from 'koffi';
import { type HostProcess, ownProcess } from '../host-process.ts';
import { makePrivate } from '../runtime-directory.ts';
import { type NotedPause, readPauses, TABLE_BYTES } from './pause-table.ts';

const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
/** From asm-generic/fcntl.h, which x86-64 uses too. */
const O_CLOEXEC = 0o2000000;
const LOCK_EXCLUSIVE_NOW = 2 | 4;
/** Another of us may take a new table, not locked yet, for one of dead processes and remove it, but hardly so often. */
const ATTEMPTS = 5;
const NAME = /^table-(qemu|xen)-(\d+)-(\d+)-[0-9a-f-]+$/;

/** Whose pauses a table has: their keys are processes of QEMU, or numbers of Xen's domains. */
export type TableKind = 'qemu' | 'xen';

/** The table of a program's pauses, as another process finds it. */
export interface TableFile {
  readonly file: string;
  readonly kind: TableKind;
  readonly writer: HostProcess;
  readonly pauses: readonly NotedPause[];
}

const libc = koffi.load('libc.so.6');
const flock = libc.func('int flock(int fd, int operation)');
const open = libc.func('int open(const char *file, int flags, unsigned int mode)');
const close = libc.func('int close(int fd)');

function lock(descriptor: number): boolean {
  return flock(descriptor, LOCK_EXCLUSIVE_NOW) === 0;
}

/**
 * Makes the file of a table, which outlives the program and the process beside it. Both share a lock on it, which the
 * kernel drops when both are dead.
 * @returns its descriptor; undefined where there is no room for it, as pausing must do without
 */
export function makeTableFile(folder: string, kind: TableKind): number | undefined {
  try {
    makePrivate(folder);
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const descriptor = newFile(folder, kind);
      if (descriptor === undefined) return undefined;
      if (lock(descriptor) && fstatSync(descriptor).nlink > 0) return descriptor;
      removeTableFile(descriptor);
      close(descriptor);
    }
  } catch {
    // As without room.
  }
  return undefined;
}

/** @throws Error where there is no room for it */
function newFile(folder: string, kind: TableKind): number | undefined {
  const { pid, started } = ownProcess();
  const file = path.join(folder, `table-${kind}-${pid}-${started}-${randomUUID()}`);
  // A table closes its descriptor itself, of which Node.js must not know.
  const descriptor = open(file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600) as number;
  if (descriptor < 0) return undefined;
  try {
    // All of it now: a store to a mapped page for which there is no room would end the program.
    writeFileSync(descriptor, new Uint8Array(TABLE_BYTES));
    return descriptor;
  } catch (error) {
    close(descriptor);
    rmSync(file, { force: true });
    throw error;
  }
}

/** Removes the file of a table; one that is no file is left. @param descriptor of this process */
export function removeTableFile(descriptor: number): void {
  try {
    const file = readlinkSync(`/proc/self/fd/${descriptor}`);
    if (NAME.test(path.basename(file))) rmSync(file, { force: true });
  } catch {
    // The next of us removes it.
  }
}

/** All tables in a folder that can be read. */
export function tableFiles(folder: string): TableFile[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    const [, kind, pid, started] = NAME.exec(name) ?? [];
    if (kind === undefined) return [];
    const file = path.join(folder, name);
    const writer = { pid: Number(pid), started: Number(started) };
    const pauses = withFile(file, (descriptor) => readPauses(descriptor)) ?? [];
    return [{ file, kind: kind as TableKind, writer, pauses }];
  });
}

/**
 * Calls `use` with the descriptor of a table if the program that made it and the process beside it are both dead, and
 * nobody else does so at this moment.
 */
export function withAbandoned<T>(file: string, use: (descriptor: number) => T): T | undefined {
  return withFile(file, (descriptor) => (lock(descriptor) ? use(descriptor) : undefined));
}

function withFile<T>(file: string, use: (descriptor: number) => T): T | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(file, O_RDWR | O_NOFOLLOW);
  } catch {
    // It has just been removed, or is another user's.
    return undefined;
  }
  try {
    return use(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
