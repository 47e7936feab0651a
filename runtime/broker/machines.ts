import { closeSync, openSync, readFileSync } from 'node:fs';
import { DomschedError } from '../error.ts';
import { isAlive } from '../host-process.ts';
import type { RamSegment } from '../hypervisor/qemu/ram.ts';
import type { Domain, DomainIdentity, DomainListing } from '../hypervisor/types.ts';
import type { MachineProcess } from '../hypervisor/vmm/machine-process.ts';
import type { RequestOf } from './protocol.ts';
import { type ReaderUser, readerUser } from './reader-user.ts';

/** Where a guest's RAM is in the process that runs it. */
export type RamPlace = NonNullable<RequestOf<'place'>['where']>;

/** Machines of one place that the daemon was given. */
export interface Machines {
  /** Those that there may be now, without asking any. */
  ids(): readonly string[];
  list(): Promise<readonly DomainListing[]>;
  /** @throws DomschedError `domain-not-found`; `refused` for one that the reader could write to by itself */
  open(id: string): Promise<OpenedMachine>;
  /** Whether a record may be one of a machine of this place, there or not. */
  owns(record: { readonly connection: string; readonly domain: string }): boolean;
}

/** A machine that was opened, whose memory is not placed yet. */
export interface OpenedMachine {
  readonly identity: DomainIdentity & { readonly pid: number; readonly started: number };
  /** Its process, whose memory the reader looks through for RAM; absent if a monitor tells. */
  readonly process?: MachineProcess;
  /** By which its memory can be read and not be written; they are the caller's to close. */
  readonly descriptors: readonly number[];
  readonly monitor?: MachineMonitor;
  /**
   * The machine with all that can be done to it, which is then the caller's to close.
   * @param where absent for a machine with a monitor
   * @throws DomschedError `refused` for a place where its RAM cannot be; `domain-gone`
   */
  place(where: RamPlace | undefined): Domain;
  /** Of one that was not placed. */
  close(): Promise<void>;
}

/** What a machine's monitor tells. */
export interface MachineMonitor {
  /** Threads that run its CPUs. */
  readonly threads: readonly number[];
  /** How often it was reset. */
  readonly resets: number;
  readonly ramVersion: number;
  readonly ram: readonly RamSegment[];
  registersText(): Promise<string>;
}

/** Files of `/proc/PID`, in the order in which they are handed over. */
export const FILES = ['mem', 'maps', 'pagemap'] as const;

/**
 * Opens {@link FILES} of a machine's process for reading. Whoever gets these can neither write through them nor open them
 * anew for writing.
 * @throws DomschedError `domain-gone`, `host-unreachable`; `refused` for one that runs as the reader's user
 */
export function openFiles(machine: { pid: number; started: number; name: string }): number[] {
  const { pid, name } = machine;
  if (isOf(pid, readerUser())) {
    const why = "it runs as the reader's user or group, who could do anything to it";
    throw new DomschedError('refused', `${name}: ${why}; give it a user of its own, or set split = false`, {
      pid,
    });
  }
  const descriptors: number[] = [];
  try {
    for (const file of FILES) descriptors.push(openSync(`/proc/${pid}/${file}`, 'r'));
    if (!isAlive(machine)) throw gone(name);
    return descriptors;
  } catch (cause) {
    for (const fd of descriptors) closeSync(fd);
    if (cause instanceof DomschedError) throw cause;
    const message = `${name}: its memory cannot be opened: ${(cause as Error).message}`;
    throw new DomschedError('host-unreachable', message, { pid }, { cause });
  }
}

/** Whether a process has that user or group, by any of its ids: effective, real, saved, or for files. */
export function isOf(pid: number, { uid, gid }: ReaderUser): boolean {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return new RegExp(`^(Uid:.*\\t${uid}|Gid:.*\\t${gid})(\\t|$)`, 'm').test(status);
}

export function gone(name: string): DomschedError {
  return new DomschedError('domain-gone', `${name} has ended`, { domain: name });
}
