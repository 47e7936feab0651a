import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

export const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}\r\n';

/** A server that says what a test wants it to, on a unix socket of its own. */
export class ScriptedServer implements AsyncDisposable {
  readonly path: string;
  readonly received: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #directory: string;

  private constructor(
    directory: string,
    name: string,
    onConnect: (socket: Socket) => void,
    onLine: (socket: Socket, line: string) => void,
  ) {
    this.#directory = directory;
    this.path = path.join(directory, name);
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        for (const line of String(data).split('\n').filter(Boolean)) {
          this.received.push(line);
          onLine(socket, line);
        }
      });
      onConnect(socket);
    });
  }

  static async start(
    onConnect: (socket: Socket) => void,
    onLine: (socket: Socket, line: string) => void = () => undefined,
    name = 'qmp.sock',
  ): Promise<ScriptedServer> {
    const server = new ScriptedServer(
      await mkdtemp(path.join(tmpdir(), 'domsched-qmp-')),
      name,
      onConnect,
      onLine,
    );
    await new Promise<void>((resolve) => server.#server.listen(server.path, resolve));
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Answers every command with an empty object, as a QEMU would that has nothing to say. */
export function obedient(socket: Socket, line: string): void {
  const { id } = JSON.parse(line) as { id: number };
  socket.write(`{"return": {}, "id": ${id}}\r\n`);
}
