import type { Socket } from 'node:net';
import { LineSocket } from '../hypervisor/qemu/line-socket.ts';
import { MOST_BYTES } from './protocol.ts';

/** One end of the connection between reader and broker: lines of JSON, of bounded length. */
export function wire(socket: Socket): LineSocket {
  return LineSocket.over('broker', socket, {
    label: "domsched's own connection to the",
    maxLineBytes: MOST_BYTES,
    connectTimeoutMs: 0,
  });
}
