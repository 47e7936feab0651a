import process from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { isMarkedBy, unmarkPause } from './pause-mark.ts';
import { asRecord, QmpClient } from './qmp-client.ts';

/** QEMU takes the next client when it has noticed that the last one, our late parent, is gone. */
const ATTEMPTS = 20;
const RETRY_MS = 250;

const [owner = ''] = process.argv.slice(2);
const paused = new Map<string, 'resume' | 'keep'>();

for await (const line of createInterface({ input: process.stdin })) {
  const path = line.slice(1);
  if (line.startsWith('+')) paused.set(path, 'resume');
  else if (line.startsWith('!')) paused.set(path, 'keep');
  else if (line.startsWith('-')) paused.delete(path);
}
// The pipe has ended: our parent is gone.
const left = [...paused].filter(([, wish]) => wish === 'resume').map(([path]) => path);
await Promise.all(left.map(resume));

async function resume(path: string): Promise<void> {
  // While we wait for our turn at the socket another one may come, pause, and leave it paused for a reason.
  for (let attempt = 0; attempt < ATTEMPTS && isMarkedBy(path, owner); attempt++) {
    try {
      const client = await QmpClient.connect(path, { greetingTimeoutMs: 1000 });
      // Whoever pauses for a reason (a crash, a migration, a save) has another status than this one.
      const status = asRecord(await client.execute('query-status'))?.status;
      if (status === 'paused' && isMarkedBy(path, owner)) await client.execute('cont');
      unmarkPause(path, owner);
      client.close();
      return;
    } catch {
      await sleep(RETRY_MS);
    }
  }
}
