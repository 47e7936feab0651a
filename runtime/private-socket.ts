import { chmodSync, lstatSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import type { Server } from 'node:net';
import path from 'node:path';

/**
 * Has a server listen on a socket file that root alone (whoever runs this) may connect to, in the place of a socket that
 * a dead process left there.
 * @throws what the file system throws; for something else than a socket in its place
 */
export async function listenOnSocket(server: Server, file: string): Promise<void> {
  const directory = path.dirname(file);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const there = lstatSync(file, { throwIfNoEntry: false });
  if (there !== undefined && !there.isSocket()) throw new Error(`${file} is there already, and no socket`);
  // In a directory of our own until its mode is right: nobody else may connect before.
  const making = mkdtempSync(path.join(directory, 'socket-'));
  try {
    const place = path.join(making, 's');
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(place, () => {
        server.off('error', reject);
        resolve();
      });
    });
    chmodSync(place, 0o600);
    renameSync(place, file);
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
}
