import process from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HostProcess, isAlive } from '../../host-process.ts';
import { isMarkedBy, unmarkPause } from './pause-mark.ts';
import { asRecord, QmpClient } from './qmp-client.ts';

/** QEMU takes the next client only after it noticed that the last one, our dead parent, is gone. */
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
// The pipe has ended, so our parent is dead.
const left = [...paused].filter(([, { wish }]) => wish === 'resume');
await Promise.all(left.map(([path, { machine }]) => resume(path, machine)));

async function resume(path: string, machine: HostProcess): Promise<void> {
  // While we wait for our turn at the socket, another process may pause the machine and leave it paused for a reason.
  for (let attempt = 0; attempt < ATTEMPTS && isAlive(machine) && isMarkedBy(machine, owner); attempt++) {
    try {
      const client = await QmpClient.connect(path, { greetingTimeoutMs: 1000 });
      // After a pause for another reason (a crash, a migration, a save) the status is another one.
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
