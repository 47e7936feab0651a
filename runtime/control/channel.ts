import type { Socket } from 'node:net';
import {
  createMessageConnection,
  type DataCallback,
  type Disposable,
  type MessageConnection,
  SocketMessageReader,
  SocketMessageWriter,
} from 'vscode-jsonrpc/node';

/** Ends a connection whose next message is too long, before it takes more memory than allowed. */
class BoundedReader extends SocketMessageReader {
  /** Bytes since the last whole message. */
  #bytes = 0;

  constructor(socket: Socket, mostBytes: number) {
    super(socket);
    // The library's timer for unfinished messages would outlive the socket.
    this.partialMessageTimeout = 0;
    socket.on('data', (chunk) => {
      // Checked before this chunk is counted, because it may hold many whole messages.
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
 * JSON-RPC over a socket. The first bytes that are not JSON-RPC end it.
 * @param mostBytes limit for one incoming message, give or take one read of the socket
 */
export function channel(socket: Socket, mostBytes = Number.POSITIVE_INFINITY): MessageConnection {
  const connection = createMessageConnection(
    new BoundedReader(socket, mostBytes),
    new SocketMessageWriter(socket),
    QUIET,
  );
  connection.onError(() => socket.destroy());
  // Rejects requests that still wait for an answer.
  connection.onClose(() => connection.dispose());
  return connection;
}
