import type { Socket } from 'node:net';
import { LineSocket } from '../hypervisor/qemu/line-socket.ts';

/** One end of the connection between reader and broker: lines of JSON. @param maxLineBytes of what comes */
export function wire(socket: Socket, maxLineBytes: number): LineSocket {
  return LineSocket.over('broker', socket, {
    label: "domsched's own connection to the",
    maxLineBytes,
    connectTimeoutMs: 0,
  });
}
