import type { DomschedError } from '../error.ts';
import { type HostProcess, hostProcess, isAlive } from '../host-process.ts';
import type { ChangeRecord, HeldRecord } from './journal.ts';

/**
 * The machine's process that these records name, if it still runs. A missing socket proves nothing: its name can vanish
 * for a while (a clean-up of /tmp, another mount) while the machine runs on with its holds.
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

/** Whether the machine of these records has ended, if it could not be reached. Only then are the records obsolete. */
export function hasMachineEnded(
  records: readonly (HeldRecord | ChangeRecord)[],
  error: DomschedError,
): boolean {
  if (livingMachine(records) !== undefined) return false;
  const known = records.some((record) => ('machine' in record ? record.machine !== undefined : false));
  const unreachable = error.details.errno === 'ECONNREFUSED' || error.details.errno === 'ENOENT';
  return error.code === 'domain-gone' || (unreachable && known);
}
