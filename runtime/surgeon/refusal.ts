import { DomschedError } from '../error.ts';
import type { Process } from '../guest/process.ts';

const REALTIME: ReadonlySet<string> = new Set(['fifo', 'rr', 'deadline']);

/** Whether a thread has ended; its process may continue without it, even if it was the leader. */
export function isGone({ state }: Process): boolean {
  return state === 'zombie' || state === 'dead';
}

/**
 * Refuses to hold a process if that would hurt the guest or could not last. The process's name does not count, since
 * anybody can choose one. Daemons that feed a watchdog have a real-time policy and daemons that serve storage set
 * PR_SET_IO_FLUSHER; both need a privilege.
 * @param threads of the process, its leader first
 * @param force hold real-time threads and storage daemons anyway
 * @throws DomschedError `refused`
 */
export function checkMayBeHeld(threads: readonly Process[], force: boolean): void {
  const process = threads[0]!;
  if (process.kernelThread) throw refusal(process, 'is a kernel thread');
  if (process.pid === 1) throw refusal(process, 'is the first process: the guest cannot do without it');
  if (threads.every((thread) => thread.exiting || isGone(thread)))
    throw refusal(process, 'is exiting', { exiting: true });
  if (threads.some(({ state }) => state === 'traced')) throw refusal(process, 'is under a tracer');
  if (force) return;
  if (threads.some(({ policy }) => REALTIME.has(policy)))
    throw refusal(process, 'has a real-time policy; --force holds it all the same');
  if (threads.some(({ ioFlusher }) => ioFlusher)) {
    throw refusal(
      process,
      "serves the guest's storage (PR_SET_IO_FLUSHER), which the guest would wait for; --force holds it all the same",
    );
  }
}

export function refusal(
  process: Pick<Process, 'pid' | 'comm'>,
  reason: string,
  details: Readonly<Record<string, unknown>> = {},
): DomschedError {
  const { pid, comm } = process;
  const message = `process ${pid} (${comm}) ${reason}; nothing was changed`;
  return new DomschedError('refused', message, { pid, ...details });
}

/** Whether an edit was refused because its process is exiting: nothing that is done to it lasts. */
export function isOfExiting(error: unknown): boolean {
  return error instanceof DomschedError && error.details.exiting === true;
}
