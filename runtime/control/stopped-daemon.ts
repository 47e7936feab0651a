import type { Socket } from 'node:net';
import { DomschedError } from '../error.ts';
import { peerOf } from '../hypervisor/qemu/unix-peer.ts';
import { standingBy } from '../hypervisor/standing.ts';
import { isStopped, stopped } from '../hypervisor/stopped-process.ts';

/** Why a daemon does not answer: it is stopped by a signal or a debugger. Undefined if it is not. */
export function stoppedDaemon(socket: Socket): DomschedError | undefined {
  const pid = peerOf(socket)?.pid ?? 0;
  if (pid <= 0 || !isStopped(pid)) return undefined;
  const { since } = stopped(pid);
  const guests = standingBy(pid);
  const when = since === undefined ? '' : ` since about ${new Date(since).toISOString()}`;
  const edits = guests.some(({ edit }) => edit) ? ', in the middle of an edit' : '';
  const names = guests.map(({ name }) => name).join(', ');
  const stands = guests.length === 0 ? '' : `, and ${names} may stand still because of it${edits}`;
  const message = `the daemon, process ${pid}, is stopped (SIGSTOP or a debugger)${when}${stands}; let it go on: kill -CONT ${pid}`;
  return new DomschedError('host-unreachable', message, { pid });
}
