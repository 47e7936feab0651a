import { createHash } from 'node:crypto';
import path from 'node:path';
import type { z } from 'zod';
import type { HostProcess } from '../host-process.ts';
import type { DomainIdentity } from '../hypervisor/types.ts';
import type { JournalHealth } from '../journal-health.ts';
import { runtimeDirectory } from '../runtime-directory.ts';
import type { CHANGE_RECORD } from './journal-schema.ts';
import { Records } from './records.ts';

/** One process that we hold, with everything needed to find it again. */
export interface HeldRecord {
  /** The `--connect` value that leads to the domain; then its id and name. */
  readonly connection: string;
  readonly domain: string;
  readonly name: string;
  /** Build-id of the guest's kernel: a guest that restarted into another kernel has lost our holds. */
  readonly buildId: string | null;
  readonly pid: number;
  readonly comm: string;
  /** Address of its task_struct, as `0x…`. */
  readonly address: string;
  /** ns since the guest's boot. With the address it distinguishes the process from a later one with its pid. */
  readonly startTimeNs: number;
  /** When it was held, ISO 8601. */
  readonly since: string;
  /** Distinguishes this boot of the guest from others; see `bootMark`. */
  readonly boot?: string | undefined;
  /** Process of the hypervisor, if any: the machine ends with it. */
  readonly machine?: HostProcess | undefined;
  /** The daemon's policy that asked for the hold, and why. */
  readonly policy?: string | undefined;
  readonly reason?: string | undefined;
}

/**
 * Whether a record belongs to this domain. A machine with two sockets has two ids, and the hold may have come through
 * the other. Another machine with this name has another process.
 */
export function isOfDomain({ domain, name, machine }: HeldRecord, identity: DomainIdentity): boolean {
  if (domain === identity.id) return true;
  const { pid, started } = identity;
  const isOther =
    machine !== undefined && pid !== undefined && (machine.pid !== pid || machine.started !== started);
  return name === identity.name && !isOther;
}

/** A nice value or share that we set, and the value before. */
export type ChangeRecord = z.output<typeof CHANGE_RECORD>;

/**
 * Our holds on disk, one file per process: written before the first byte of the hold and removed only after its
 * release. A crash may leave a record too many, never one too few.
 */
export class Journal extends Records<HeldRecord> {
  constructor(directory = path.join(runtimeDirectory(), 'held'), health?: JournalHealth) {
    const parse = async (json: unknown) => {
      // Mostly nothing is held; then the validation library need not be loaded.
      const { HELD_RECORD } = await import('./journal-schema.ts');
      return HELD_RECORD.parse(json);
    };
    super(directory, processName, parse, health);
  }
}

/** Nice values, weights and caps that we change, written to disk before the change. */
export class ChangeJournal extends Records<ChangeRecord> {
  constructor(directory = path.join(runtimeDirectory(), 'changed'), health?: JournalHealth) {
    const nameOf = (record: ChangeRecord) =>
      record.kind === 'nice' ? processName(record) : hash(['share', record.domain]);
    const parse = async (json: unknown) => {
      const { CHANGE_RECORD } = await import('./journal-schema.ts');
      return CHANGE_RECORD.parse(json);
    };
    super(directory, nameOf, parse, health);
  }
}

function processName({ domain, pid, startTimeNs, address }: HeldRecord): string {
  return hash([domain, pid, startTimeNs, address]);
}

function hash(key: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 32);
}
