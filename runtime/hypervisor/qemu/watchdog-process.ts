import process from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HostProcess, isAlive } from '../../host-process.ts';
import { removeTableFile } from '../pause-files.ts';
import { PauseTable, readPauses } from '../pause-table.ts';
import { whileStopped } from '../stopped-parent.ts';
import { isMarkedBy, unmarkPause } from './pause-mark.ts';
import { asRecord, QmpClient } from './qmp-client.ts';

/** QEMU takes the next client only after it noticed that the last one, our dead parent, is gone; a busy one is slow. */
const ATTEMPTS = 120;
const RETRY_MS = 250;
/** Descriptor of our parent's pause table. */
const TABLE = 3;

interface ArmedMachine {
  readonly machine: HostProcess;
  readonly slot: number;
  /** Our parent's descriptor of its connection. */
  readonly descriptor: number;
}

const [owner = '', pid = '', started = '', lookMs] = process.argv.slice(2);
const parent: HostProcess = { pid: Number(pid), started: Number(started) };
const paused = new Map<string, ArmedMachine>();
const table = new PauseTable(TABLE);

const looks = whileStopped(
  parent,
  async (stands) => {
    // One that fails does not keep the others; there is another look soon.
    for (const armed of paused.values()) await letGo(armed, stands).catch(() => undefined);
  },
  Number(lookMs),
);
for await (const line of createInterface({ input: process.stdin })) {
  const [, what, machine, since, slot, descriptor, path] =
    /^([+-])(\d+)-(\d+) (\d+) (-?\d+) (.*)$/.exec(line) ?? [];
  if (path === undefined) continue;
  if (what === '-') {
    paused.delete(path);
    continue;
  }
  paused.set(path, {
    machine: { pid: Number(machine), started: Number(since) },
    slot: Number(slot),
    descriptor: Number(descriptor),
  });
}
// The pipe has ended, so our parent is dead.
clearInterval(looks);
const kept = new Set(
  readPauses(TABLE)
    .filter(({ wish }) => wish === 'keep')
    .map(({ slot }) => slot),
);
const left = [...paused].filter(([, { slot }]) => !kept.has(slot));
await Promise.all(left.map(([path, { machine }]) => resume(path, machine)));
removeTableFile(TABLE);

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

/**
 * Lets a machine go on that our parent, which is stopped, has paused. Once we have claimed the pause, no word can be
 * written under it any more, whenever our parent goes on; we cannot claim it while words are being written.
 */
async function letGo({ machine, slot, descriptor }: ArmedMachine, stands: () => boolean): Promise<void> {
  if (table.wishAt(slot) !== 'resume' || !isMarkedBy(machine, owner)) return;
  using connection = await parentConnection(descriptor);
  if (connection === undefined || !stands()) return;
  if (!table.change(slot, machine.pid, 'resume', 'claimed')) return;
  let resumed = false;
  try {
    if ((await connection.status()) !== 'paused' || !stands()) return;
    connection.send('cont');
    resumed = true;
  } finally {
    table.change(slot, machine.pid, 'claimed', resumed ? 'resumed' : 'resume');
  }
}

/** Loaded only for a parent that stands still. */
async function parentConnection(descriptor: number) {
  const { ParentConnection } = await import('./parent-connection.ts');
  return ParentConnection.of(parent.pid, descriptor);
}
