import process from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HostProcess, isAlive } from '../../host-process.ts';
import { isMarkedBy, unmarkPause } from './pause-mark.ts';
import { asRecord, QmpClient } from './qmp-client.ts';

/** QEMU takes the next client when it has noticed that the last one, our late parent, is gone. */
const ATTEMPTS = 20;
const RETRY_MS = 250;

const [owner = ''] = process.argv.slice(2);
const paused = new Map<string, { machine: HostProcess; wish: 'resume' | 'keep' }>();

for await (const line of createInterface({ input: process.stdin })) {
  const [, what, pid, started, path] = /^([+!-])(\d+)-(\d+) (.*)$/.exec(line) ?? [];
  if (path === undefined) continue;
  const machine = { pid: Number(pid), started: Number(started) };
  if (what === '-') paused.delete(path);
  else paused.set(path, { machine, wish: what === '!' ? 'keep' : 'resume' });
}
// The pipe has ended: our parent is gone.
const left = [...paused].filter(([, { wish }]) => wish === 'resume');
await Promise.all(left.map(([path, { machine }]) => resume(path, machine)));

async function resume(path: string, machine: HostProcess): Promise<void> {
  // While we wait for our turn at the socket another one may come, pause, and leave it paused for a reason.
  for (let attempt = 0; attempt < ATTEMPTS && isAlive(machine) && isMarkedBy(machine, owner); attempt++) {
    try {
      const client = await QmpClient.connect(path, { greetingTimeoutMs: 1000 });
      // Whoever pauses for a reason (a crash, a migration, a save) has another status than this one.
      const status = asRecord(await client.execute('query-status'))?.status;
      if (status === 'paused' && isMarkedBy(machine, owner)) await client.execute('cont');
      unmarkPause(machine, owner);
      client.close();
      return;
    } catch {
      await sleep(RETRY_MS);
    }
  }
}
