import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Has no more than so many connections open. One too many costs the connection its place that has waited longest
 * without a request under way: whoever only opens connections keeps nobody else out.
 */
export function limitConnections(server: Server, most: number): void {
  let open = 0;
  /** Without a request under way, the longest first. */
  const waiting = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open += 1;
    waiting.add(socket);
    socket.once('close', () => {
      open -= 1;
      waiting.delete(socket);
    });
    if (open <= most) return;
    const [oldest] = waiting;
    oldest!.destroy();
  });
  server.on('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    waiting.delete(socket);
    response.once('close', () => {
      if (!socket.destroyed) waiting.add(socket);
    });
  });
}
