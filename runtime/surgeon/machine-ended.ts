import type { DomschedError } from '../error.ts';
import { type HostProcess, hostProcess, isAlive } from '../host-process.ts';
import type { ChangeRecord, HeldRecord } from './journal.ts';

/**
 * The process of a machine that records are of, if it still runs. Its socket says nothing about it: a name can be away for
 * a moment (a program that tidies /tmp, another mount), and the machine goes on with what it holds.
 */
export function livingMachine(records: readonly (HeldRecord | ChangeRecord)[]): HostProcess | undefined {
  for (const record of records) {
    if ('machine' in record && record.machine !== undefined && isAlive(record.machine)) return record.machine;
    if (!('hypervisorPid' in record) || record.hypervisorPid === null) continue;
    const living = hostProcess(record.hypervisorPid);
    if (living !== undefined) return living;
  }
  return undefined;
}

/** Whether the machine that records are of has ended, when it could not be reached: only then are they worth nothing. */
export function hasMachineEnded(
  records: readonly (HeldRecord | ChangeRecord)[],
  error: DomschedError,
): boolean {
  if (livingMachine(records) !== undefined) return false;
  const known = records.some((record) => ('machine' in record ? record.machine !== undefined : false));
  const unreachable = error.details.errno === 'ECONNREFUSED' || error.details.errno === 'ENOENT';
  return error.code === 'domain-gone' || (unreachable && known);
}
