import type { Socket } from 'node:net';
import {
  createMessageConnection,
  type DataCallback,
  type Disposable,
  type MessageConnection,
  SocketMessageReader,
  SocketMessageWriter,
} from 'vscode-jsonrpc/node';

/** Ends a connection whose next message is too long, before it takes more memory than that. */
class BoundedReader extends SocketMessageReader {
  /** Bytes since the last whole message. */
  #bytes = 0;

  constructor(socket: Socket, mostBytes: number) {
    super(socket);
    // Its timer for a message that stays unfinished would outlive the socket.
    this.partialMessageTimeout = 0;
    socket.on('data', (chunk) => {
      // Before this chunk: it may hold many whole messages.
      if (this.#bytes > mostBytes) socket.destroy();
      this.#bytes += chunk.length;
    });
  }

  override listen(callback: DataCallback): Disposable {
    return super.listen((message) => {
      this.#bytes = 0;
      callback(message);
    });
  }
}

const QUIET = { error: () => {}, warn: () => {}, info: () => {}, log: () => {} };

/**
 * JSON-RPC over a socket. It ends at the first thing that is none.
 * @param mostBytes of one message that comes in, give or take what a socket reads at a time
 */
export function channel(socket: Socket, mostBytes = Number.POSITIVE_INFINITY): MessageConnection {
  const connection = createMessageConnection(
    new BoundedReader(socket, mostBytes),
    new SocketMessageWriter(socket),
    QUIET,
  );
  connection.onError(() => socket.destroy());
  // Whoever waits for an answer is told that there will be none.
  connection.onClose(() => connection.dispose());
  return connection;
}
