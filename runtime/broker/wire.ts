import type { Socket } from 'node:net';
import { type LineQueue, LineSocket } from '../hypervisor/qemu/line-socket.ts';

/**
 * One end of the connection between reader and broker: lines of JSON.
 * @param maxLineBytes of what comes
 * @param queue of what the other end does not take
 */
export function wire(socket: Socket, maxLineBytes: number, queue?: LineQueue): LineSocket {
  return LineSocket.over('broker', socket, {
    label: "domsched's own connection to the",
    maxLineBytes,
    connectTimeoutMs: 0,
    ...(queue && { queue }),
  });
}
