import { createHash } from 'node:crypto';
import { readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';

/** Hashes an open file from its start to its end, away from the main thread. */
const { fd } = workerData as { fd: number };
const hash = createHash('sha256');
const chunk = Buffer.allocUnsafeSlow(256 << 10);
for (let position = 0; ; ) {
  const count = readSync(fd, chunk, 0, chunk.length, position);
  if (count === 0) break;
  hash.update(chunk.subarray(0, count));
  position += count;
}
parentPort!.postMessage(hash.digest('hex'));
