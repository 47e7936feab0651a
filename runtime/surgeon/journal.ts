import { createHash } from 'node:crypto';
import path from 'node:path';
import type { z } from 'zod';
import type { HostProcess } from '../host-process.ts';
import type { DomainIdentity } from '../hypervisor/types.ts';
import { runtimeDirectory } from '../runtime-directory.ts';
import type { CHANGE_RECORD } from './journal-schema.ts';
import { Records } from './records.ts';

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
  /** Tells this boot of the guest from its others, see `bootMark`. */
  readonly boot?: string | undefined;
  /** Process of the hypervisor, where there is one: the machine has ended when that has. */
  readonly machine?: HostProcess | undefined;
  /** Whose wish it is, and why: of the daemon's policy that asked for it. */
  readonly policy?: string | undefined;
  readonly reason?: string | undefined;
}

/**
 * Whether a record is of this domain. A machine with two sockets has two ids, and whoever held may have come by the
 * other; another machine of that name has another process.
 */
export function isOfDomain({ domain, name, machine }: HeldRecord, identity: DomainIdentity): boolean {
  if (domain === identity.id) return true;
  const { pid, started } = identity;
  const isOther =
    machine !== undefined && pid !== undefined && (machine.pid !== pid || machine.started !== started);
  return name === identity.name && !isOther;
}

/** A nice value or a share of ours, and what it was before. */
export type ChangeRecord = z.output<typeof CHANGE_RECORD>;

/**
 * What we hold, on disk: a file per process, there before the first byte of its hold is written and gone only after
 * its release. A crash in between leaves a record too many, never one too few.
 */
export class Journal extends Records<HeldRecord> {
  constructor(directory = path.join(runtimeDirectory(), 'held')) {
    super(directory, processName, async (json) => {
      // Most often nothing is held, and then nobody has to wait for the validation library.
      const { HELD_RECORD } = await import('./journal-schema.ts');
      return HELD_RECORD.parse(json);
    });
  }
}

/** Nice values, weights and caps that we changed, on disk before they are. */
export class ChangeJournal extends Records<ChangeRecord> {
  constructor(directory = path.join(runtimeDirectory(), 'changed')) {
    const nameOf = (record: ChangeRecord) =>
      record.kind === 'nice' ? processName(record) : hash(['share', record.domain]);
    super(directory, nameOf, async (json) => {
      const { CHANGE_RECORD } = await import('./journal-schema.ts');
      return CHANGE_RECORD.parse(json);
    });
  }
}

function processName({ domain, pid, startTimeNs, address }: HeldRecord): string {
  return hash([domain, pid, startTimeNs, address]);
}

function hash(key: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 32);
}
