import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Tick } from '../../runtime/tick/tick.ts';

/** What stands for a daemon: a control socket that answers `watch`. */
export interface FakeDaemon extends AsyncDisposable {
  /** To be DOMSCHED_RUNTIME_DIR. */
  readonly directory: string;
  /** Clients that watch. */
  readonly watching: number;
  tick(report: Tick): void;
}

export async function fakeDaemon(): Promise<FakeDaemon> {
  const directory = await mkdtemp(path.join(tmpdir(), 'control-'));
  const clients = new Map<Socket, number>();
  const server = createServer((socket) => {
    socket.on('error', () => {}).on('close', () => clients.delete(socket));
    // A client that has seen enough closes while it is written to; the lines' reader passes that error on.
    const lines = createInterface({ input: socket }).on('error', () => {});
    lines.on('line', (line) => {
      const { id, op } = JSON.parse(line) as { id: number; op: string };
      if (op === 'watch') clients.set(socket, id);
    });
  });
  await new Promise<void>((resolve) => server.listen(path.join(directory, 'control'), resolve));
  return {
    directory,
    get watching() {
      return clients.size;
    },
    tick(report) {
      for (const [socket, id] of clients) socket.write(`${JSON.stringify({ id, tick: report })}\n`);
    },
    async [Symbol.asyncDispose]() {
      for (const socket of clients.keys()) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await rm(directory, { recursive: true, force: true });
    },
  };
}
