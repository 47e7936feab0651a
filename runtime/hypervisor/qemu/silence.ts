import { DomschedError } from '../../error.ts';
import { listeningProcess, processState } from './qemu-process.ts';
import { type UnixPeer, unixSockets } from './unix-peer.ts';

const SECOND_SOCKET =
  'Close that one, or start QEMU with a second socket: -qmp unix:/run/domsched/NAME.sock,server=on,wait=off';

/** Explains why a QMP socket accepted our connection but says nothing, as far as the host's kernel can tell. */
export function explainSilence(path: string, peer: UnixPeer | undefined): DomschedError {
  const stopped = whyStopped(path, peer);
  if (stopped !== undefined) return new DomschedError('timeout', `QMP ${path}: ${stopped}`, { path });
  const connections = unixSockets().filter(({ bound, listens }) => bound === peer?.bound && !listens);
  const waits = connections.some((connection) => connection.waits);
  const served = connections.some((connection) => !connection.waits);
  if (served && !waits) {
    const message =
      `${path} takes the connection but does not greet: it is no QMP socket, but a serial line, a gdbstub or the like; ` +
      'name the socket of -qmp';
    return new DomschedError('protocol', message, { path });
  }
  if (waits && !served) {
    const message = `QMP ${path}: QEMU is busy and takes no client; try again`;
    return new DomschedError('timeout', message, { path });
  }
  return new DomschedError(
    'timeout',
    `QMP ${path} accepts but does not answer: it serves one client at a time, and another one is attached (a daemon of ` +
      `ours, libvirt, a script). ${SECOND_SOCKET}`,
    { path },
  );
}

/** Why the process that serves a socket does not run, with the command to let it go on; undefined if it runs. */
export function whyStopped(path: string, peer: UnixPeer | undefined): string | undefined {
  const pid = listeningProcess(path, peer) ?? peer?.pid ?? 0;
  const state = pid > 0 ? processState(pid) : undefined;
  if (state === 'T') return `process ${pid}, which serves it, is stopped; let it go on: kill -CONT ${pid}`;
  if (state === 't')
    return `process ${pid}, which serves it, is held by a debugger; let that one go on or detach`;
  return undefined;
}
