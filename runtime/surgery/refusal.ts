import { DomschedError } from '../error.ts';
import type { Process } from '../guest/process.ts';
import { formatAddress, type GuestVirtual } from '../memory/address.ts';

/**
 * Programs that feed a hardware watchdog: it resets the machine when they stand still. `watchdog` and `wd_keepalive`
 * (Debian's watchdog), `watchdogd`, `wdmd` (sanlock), `sbd` (Pacemaker). Where systemd feeds it, that is process 1.
 */
const WATCHDOG_FEEDERS: ReadonlySet<string> = new Set([
  'watchdog',
  'wd_keepalive',
  'watchdogd',
  'wdmd',
  'sbd',
]);
const REALTIME: ReadonlySet<string> = new Set(['fifo', 'rr', 'deadline']);

/**
 * Refuses to hold what would hurt the guest or could not last.
 * @param threads of the process, its leader first
 * @param force hold real-time threads and those that feed a watchdog all the same
 * @throws DomschedError `refused`
 */
export function checkMayBeHeld(threads: readonly Process[], force: boolean): void {
  const process = threads[0]!;
  if (process.kernelThread) throw refusal(process, 'is a kernel thread');
  if (process.pid === 1) throw refusal(process, 'is the first process: the guest cannot do without it');
  if (process.exiting || process.state === 'zombie' || process.state === 'dead')
    throw refusal(process, 'is exiting');
  if (threads.some(({ state }) => state === 'traced')) throw refusal(process, 'is under a tracer');
  if (force) return;
  if (threads.some(({ policy }) => REALTIME.has(policy)))
    throw refusal(process, 'has a real-time policy; --force holds it all the same');
  if (WATCHDOG_FEEDERS.has(process.rawComm)) {
    throw refusal(process, "feeds the guest's watchdog, which resets it; --force holds it all the same");
  }
}

export function refusal(process: Pick<Process, 'pid' | 'comm'>, reason: string): DomschedError {
  const { pid, comm } = process;
  return new DomschedError('refused', `process ${pid} (${comm}) ${reason}; nothing was changed`, { pid });
}

/** As {@link refusal}, by somebody who has only the `task_struct` of a thread. */
export function threadRefusal(task: GuestVirtual, reason: string): DomschedError {
  const address = formatAddress(task);
  return new DomschedError('refused', `task ${address} ${reason}; nothing was changed`, { task: address });
}
